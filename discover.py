"""Does the model refuse by one mechanism or by several? Find the circuits, compare them, and answer.

Builds what is missing first (activations, sparse autoencoders), then finds for each category of harm the features
that make the model refuse, tests whether one category's mechanism is the other's, draws the heatmaps, and writes the
report: OUTPUT_DIR/MODEL/report/report.html. The last line printed is the verdict.

Examples:
    python discover.py
    python discover.py model.modularity=1
    python discover.py sampler=uniform circuits=ig circuits.separate_safe_toxic=true
"""

from __future__ import annotations

from refusal import pipeline
from refusal.config.entry import command
from refusal.config.schemas import Options


@command
def discover(options: Options) -> object:
    """Have the autoencoders; the callbacks do the rest."""
    return pipeline.train(options)


if __name__ == "__main__":
    discover()
