"""A study of a planted model without the line before it: prompts, labels and component writes as arrays."""

from refusal.calibration.planted import SYSTEM_TEMPLATE, PlantedStudy, plant
from refusal.models.planted_plan import Plan

__all__ = ["SYSTEM_TEMPLATE", "Plan", "PlantedStudy", "plant"]
