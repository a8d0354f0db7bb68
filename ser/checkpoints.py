"""Checkpoints: written whole, read with care, and held against the run that is to go on from them."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins import TorchCheckpointIO

from ser.errors import UserError
from ser.storage import write_atomically


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: a kill or a full disk leaves the old one as it was."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint to a path."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getvalue())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Open a checkpoint; its tensors stay on disk until they are used.

    Raises:
        UserError: There is no such file, or it is no checkpoint of ser.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        checkpoint["hyper_parameters"]["emotions"], checkpoint["state_dict"]["feature_mean"], checkpoint["front_end"]
    except FileNotFoundError as error:
        raise UserError(f"There is no checkpoint {path}.") from error
    except Exception as error:  # torch raises a dozen kinds for a damaged file
        raise UserError(
            f"{path} is not a checkpoint of ser, or is damaged ({type(error).__name__}). "
            "Give the best.ckpt or last.ckpt of a run folder."
        ) from error
    return checkpoint


def defaults_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Turn a checkpoint into defaults of the options that build network and front-end."""
    settings = checkpoint["hyper_parameters"]
    net = settings["net"]
    linked = ("num_classes", "feature_shape")  # follow from the data
    arguments = {name: value for name, value in net["init_args"].items() if name not in linked}
    trained_on = checkpoint.get("trained_on") or {}
    fold = {name: trained_on[name] for name in ("protocol", "fold", "merge") if name in trained_on}
    return {
        "model.net": {"class_path": net["class_path"], "init_args": arguments},
        **{f"model.{name}": settings[name] for name in ("pad_before_norm", "normalize")},
        "data": {
            "class_path": "ser.corpora.AudioFolder",
            "init_args": {**(checkpoint["front_end"] or {}), "emotions": settings["emotions"], **fold},
        },
    }


def refuse_other_settings(config: str, kept: Path) -> None:
    """Compare a config with that of the run to be resumed, in what decides its numbers.

    Raises:
        UserError: Network, optimiser, data or seed differ.
    """
    if not kept.exists():
        return
    ours, theirs = (dict(_decisive(yaml.safe_load(text))) for text in (config, kept.read_text()))
    differing = [key for key in {**theirs, **ours} if ours.get(key) != theirs.get(key)]
    if differing:
        lines = [f"  {key.replace('.init_args', '')}: {theirs.get(key)}, now {ours.get(key)}" for key in differing]
        raise UserError(
            f"The run in {kept.parent} was made with other settings, so it cannot go on with these:\n"
            + "\n".join(lines)
            + "\nGive the settings that it was made with, or leave --ckpt_path out to start another run."
        )


def _decisive(settings: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings that decide a run's numbers, with their dotted names; the trainer's and places do not."""
    if isinstance(settings, dict) and settings:
        for key, value in settings.items():
            yield from _decisive(value, f"{name}.{key}".removeprefix("."))
    elif re.match(r"(model|optimizer|lr_scheduler|data|seed_everything)\b(?!.*\.(root|cache_dir|num_workers)$)", name):
        yield name, settings
