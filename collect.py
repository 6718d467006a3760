"""Show the prompts to the model; keep its activations, its responses, and whether it refused.

They are written to OUTPUT_DIR/MODEL/activations, and the statistics of the prompts to OUTPUT_DIR/MODEL/data_analysis.

Examples:
    python collect.py
    python collect.py layers='residuals_0-2'
    python collect.py model.modularity=0.5 data.max_per_category=30
"""

from __future__ import annotations

from refusal import pipeline
from refusal.config.entry import command
from refusal.config.schemas import Options


@command
def collect(options: Options) -> object:
    """Have the activations."""
    return pipeline.collect(options)


if __name__ == "__main__":
    collect()
