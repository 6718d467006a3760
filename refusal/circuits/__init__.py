"""Which features of which sites make the model refuse: attribution, circuits, and whether they explain the behaviour.

1. ``experiment`` runs the prompts once, forward and backward, and holds what every method shares.
2. ``attribution`` gives each feature an importance on each prompt: one file a method, one function a file.
3. ``discover`` averages importances by category, selects nodes and joins them by edges: a ``Circuit``.
4. ``evaluation`` intervenes on held-out prompts and says how much of the refusal score a circuit explains;
   ``behaviour`` counts the refusals with a circuit taken out, or put in, beside what to compare with.
5. ``steer`` and ``export`` work from a study on disk: answer prompts with a circuit removed or added; write graphs.
"""
