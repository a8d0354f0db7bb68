"""Descriptions of objects as plain data, for checkpoints, cache keys and protocols.

As in scikit-learn, an object keeps every constructor argument as an attribute of the same name.
"""

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

# Public homes of classes, and their present and former modules. Stored data name classes by their homes, so that files
# can move; data that are read may name any of these modules.
HOMES = {
    "ser.models": ("ser.models.",),
    "ser.corpora": ("ser.corpora.",),
    "ser.data": ("ser.data.", "ser.features.", "ser.protocols.", "ser.feature_augment."),
    "ser.training": ("ser.training.", "ser.task.", "ser.tracking.", "ser.schedules."),
    "torch.optim": ("torch.optim.adam.", "torch.optim.adamw.", "torch.optim.sgd.", "torch.optim.rmsprop."),
}


def describe(value: Any) -> Any:
    """Turn a value into plain data (dicts, lists, strings, numbers) from which it can be rebuilt.

    Objects and partials become ``{"class_path": ..., "init_args": {...}}``, which the command line reads.

    Raises:
        TypeError: An object does not keep a constructor argument as an attribute, a function has no name, or a partial
            has positional arguments.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return _class_path(value)
    if isinstance(value, functools.partial):
        made, unnamed = value.func, value.args
        if made.__module__.startswith("jsonargparse."):  # of a loaded checkpoint: a factory, and the class
            made, unnamed = unnamed[-1], ()
        if unnamed:
            raise TypeError(f"The partial of {_class_path(made)} has positional arguments; give them by keyword")
        return {"class_path": _class_path(made), "init_args": describe(value.keywords)}
    return {"class_path": _class_path(type(value)), "init_args": describe(_arguments(value))}


def digest(value: Any, length: int = 12) -> str:
    """Hash a value's description: equal descriptions, equal digest (``length`` hexadecimal characters)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=describe)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:length]


def _class_path(cls: Any) -> str:
    if "<" in cls.__qualname__ and not isinstance(cls, type):  # <lambda>, or a function in f.<locals>
        raise TypeError(f"{cls.__qualname__} in {cls.__module__} has no import path; define it in a module")
    return public_path(f"{cls.__module__}.{cls.__qualname__}")


def public_path(path: str) -> str:
    """Return the public path of a class in any present or former module."""
    home = next((home for home, places in HOMES.items() if path.startswith(places)), None)
    return f"{home}.{path.rpartition('.')[2]}" if home is not None else path


def public_paths(tree: Any) -> Any:
    """Return plain data with public class paths."""
    if isinstance(tree, Mapping):
        return {
            key: public_path(value) if key == "class_path" and isinstance(value, str) else public_paths(value)
            for key, value in tree.items()
        }
    return [public_paths(item) for item in tree] if isinstance(tree, list | tuple) else tree


def _arguments(value: object) -> dict[str, Any]:
    names = [
        name
        for name, parameter in inspect.signature(type(value).__init__).parameters.items()
        if name != "self" and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    lacking = [name for name in names if not hasattr(value, name)]
    if lacking:
        raise TypeError(
            f"{type(value).__name__} does not keep its constructor argument(s) {', '.join(lacking)} as attributes of "
            "the same name, so it cannot be described"
        )
    return {name: getattr(value, name) for name in names}
