"""Which settings decide a result: one list for resuming, cross-validation, comparison and report.

Every setting decides unless it is named here; so does a new option until it is added.
"""

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ser.settings.class_paths import HOMES, describe, public_path

# Paths, devices, speed and display.
INDIFFERENT = (
    r"(run|ckpt_path|weights_only)\b"
    r"|trainer\.(accelerator|strategy|devices|num_nodes|plugins|logger|profiler|default_root_dir|model_registry|benchmark"
    r"|enable_(progress_bar|model_summary|autolog_hparams)|log_every_n_steps|detect_anomaly|limit_predict_batches)\b"
    r"|data\.(.+\.)?(root|cache_dir|num_workers|download)$|data\.name$"
    r"|(checkpoint|early_stopping)\.(dirpath|filename|verbose|log_rank_zero_only|save_last)$"
)
# The length of training and the checkpoint that is tested: they may change when a fit is resumed.
LENGTH = r"trainer\.(min|max)_(epochs|steps|time)$|early_stopping\.patience$|test_checkpoint$"
# What differs between the runs of an experiment.
FOLD_AND_SEED = r"data\.fold$|seed_everything$"
NOTHING = r"(?!)"

# Default classes, which a config need not name.
UNNAMED = {
    "model": "ser.training.EmotionClassifier",
    "data.preprocess": "ser.data.Preprocess",
    "data.features": "ser.data.LogMel",
    "data.protocol": "ser.data.LeaveOneSpeakerOut",
    "data.augment": "ser.data.Augment",
}


class Changed(NamedTuple):
    """A setting that differs.

    Attributes:
        name: Its dotted name.
        then: Its value in the one config.
        now: Its value in the other.
    """

    name: str
    then: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name}: {self.then}, now {self.now}"


def decisive(config: Mapping[str, Any], apart: str = NOTHING) -> dict[str, Any]:
    """Return the settings of a config that decide its result.

    Args:
        config: Content of a ``config.yaml``.
        apart: Pattern of the dotted names of further settings that are left out.

    Returns:
        Settings by dotted name; a class is the setting ``<name>.class_path``.
    """
    left_out = re.compile(f"{INDIFFERENT}|{apart}")
    return {name: value for name, value in _flat(_beside(config)) if not left_out.match(name)}


def differences(now: Mapping[str, Any], then: Mapping[str, Any], apart: str = NOTHING) -> list[Changed]:
    """Compare the settings that decide the results of two configs; an option that one does not name has its default.

    Args:
        now: The second config, such as the one that is given.
        then: The first, such as that of a run.
        apart: Pattern of the dotted names of settings that may differ.

    Returns:
        What differs; if a class differs, without its options.
    """
    ours, theirs = decisive(now, apart), decisive(then, apart)
    found: list[Changed] = []
    for name in sorted({**theirs, **ours}, key=lambda name: not name.endswith(".class_path")):
        owner = name.removesuffix(".class_path")
        if any(owner.startswith(f"{other.name}.") for other in found):
            continue
        before, after = _value(theirs, name), _value(ours, name)
        if before != after:
            found.append(Changed(owner, before, after))
    return found


def _beside(value: Any) -> Any:
    """Return plain data with classes by their public path, and their options beside it."""
    if isinstance(value, list | tuple):
        return [_beside(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    plain = {str(key): _beside(item) for key, item in value.items()}
    if isinstance(path := plain.get("class_path"), str):
        options = {key: item for key, item in plain.items() if key not in ("class_path", "init_args")}
        return {"class_path": public_path(path), **(plain.get("init_args") or {}), **options}
    return plain


def _flat(settings: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings with their dotted names."""
    if isinstance(settings, dict) and settings:
        for key, value in settings.items():
            yield from _flat(value, f"{name}.{key}".removeprefix("."))
    else:
        yield name, settings or None if isinstance(settings, dict | list) else settings


def _value(settings: Mapping[str, Any], name: str) -> Any:
    """Return a setting, or its default where a config does not name it, for which its class is imported."""
    owner, _, option = name.rpartition(".")
    if name in settings:
        return settings[name]
    if option == "class_path":
        return UNNAMED.get(owner)
    path = settings.get(f"{owner}.class_path") or UNNAMED.get(owner, "")
    home, _, cls = path.rpartition(".")
    known = getattr(importlib.import_module(home), cls, None) if home in HOMES else None  # no other is imported
    for parent in getattr(known, "__mro__", ()):
        parameter = inspect.signature(parent.__init__).parameters.get(option)
        if parameter is not None and parameter.default is not parameter.empty:
            return _beside(describe(parameter.default))
    return None
