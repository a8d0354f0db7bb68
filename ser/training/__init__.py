"""Training: the task, checkpoints, metrics, W&B, many devices."""

import importlib
from typing import Any

HOMES = {"EmotionClassifier": "task", "InverseTimeDecay": "schedules", "WandbLogger": "tracking"}
__all__ = list(HOMES)


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for: W&B and the task are slow to load."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
