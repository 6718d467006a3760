"""How good an autoencoder is: on held-out rows (``heldout``), in the model's place, and as probes (``measure``)."""
