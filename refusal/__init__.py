"""How does a chat model refuse: by one shared mechanism, or by one for each category of harm?

The folders, in the order in which data flow through them; each imports only from those to its left:

    prompts -> models -> activations -> sae -> circuits -> comparison -> report

Words for dimensions, the same everywhere: ``batch``, ``seq``, ``n_prompts``, ``n_layers``, ``d_model``
(width of the residual stream), ``d_sae`` (features of a sparse autoencoder), ``k`` (active features),
``vocab``.
"""


class InputError(Exception):
    """Something the user gave cannot be used: one line that says what, where, and what would be right."""
