"""Is the answer right? The measurement on planted models, whose truth is known: ``python -m refusal.calibration``.

1. ``family`` draws models that differ in everything; ``planted`` writes one and asks it its prompts.
2. ``direct`` measures one as a study does, up to its verdict. For some, ``nodes`` finds the planted circuit, and
   ``whole`` does the whole study with trained autoencoders, both by every method of attribution.
3. ``nulls`` tests both permutation tests where there is nothing to find.
4. ``ledger`` keeps what is done, one line a model; ``figures`` sums it up; ``page`` and ``picture`` show it.

Nothing in the measurement may be chosen to suit this family. Seeds under 100 are for tuning whatever must be tuned;
those from 100 on (100 is the default) are for the claim, and are never looked at before it is made.
"""
