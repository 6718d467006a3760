"""Train a sparse autoencoder at each chosen place of the model; collect its activations first, where they are missing.

Each autoencoder is written to OUTPUT_DIR/MODEL/saes/SITE, with its training history and plots.

Examples:
    python train.py sae.hidden_dim=16384
    python train.py layers=residuals_1 sampler=uniform
    python train.py -m layers=residuals_1,residuals_2 sae.k=8,16
"""

from __future__ import annotations

from refusal import pipeline
from refusal.config.entry import command
from refusal.config.schemas import Options


@command
def train(options: Options) -> object:
    """Have the autoencoders."""
    return pipeline.train(options)


if __name__ == "__main__":
    train()
