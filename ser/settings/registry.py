"""Classes that a checkpoint may name: it is data, and must not decide which code runs."""

import inspect
import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from ser.errors import UserError
from ser.settings.class_paths import public_path

# Text that jsonargparse could read as an import path, a file, or the YAML of a class; speaker names may look like it.
SUSPICIOUS = re.compile(r"[{}\n]|\w\.\w|class_path.")


@cache
def registered() -> frozenset[str]:
    """Return the public path of every class that a checkpoint may name.

    These are the networks, features, protocols, preprocessing and augmentation of ``ser``, and the optimisers and
    schedules of PyTorch and of ``ser``.
    """
    import torch

    import ser.data
    import ser.models

    optimizers = _subclasses(torch.optim, torch.optim.Optimizer)
    schedules = _subclasses(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler)
    return frozenset(
        {
            *(f"ser.models.{name}" for name in ser.models.__all__),
            *(f"ser.data.{name}" for name in ser.data.__all__ if name != "SpeechCorpus"),
            *(f"torch.optim.{name}" for name in optimizers),
            *(f"torch.optim.lr_scheduler.{name}" for name in schedules),
            "ser.training.InverseTimeDecay",
            "lightning.pytorch.cli.ReduceLROnPlateau",
        }
    )


def _subclasses(package: Any, base: type) -> list[str]:
    return [name for name, cls in inspect.getmembers(package, inspect.isclass) if issubclass(cls, base)]


def check_classes(settings: dict[str, Any], source: str, named: Collection[str] = ()) -> None:
    """Check that settings name only classes that are registered or named by the user.

    Nothing is imported or constructed.

    Args:
        settings: Plain data: descriptions of objects, at any depth.
        source: Their origin, for the message.
        named: Class paths in the user's command or config.

    Raises:
        UserError: They name another class or function, or hide one in text.
    """
    try:
        leaves = list(_leaves(settings))
    except RecursionError as error:
        raise UserError(f"{source} holds endlessly nested settings, so nothing was loaded.") from error
    for where, value, text_only in leaves:
        is_class = where.rpartition(".")[2] == "class_path"
        if not is_class and (text_only or not SUSPICIOUS.search(value)):
            continue
        if public_path(value) not in registered() and value not in named:
            raise UserError(
                f"{source} names {value[:100]!r} as its {where.removesuffix('.class_path')}, which is not a network, "
                "feature, protocol, optimiser or schedule of ser or PyTorch, so nothing was loaded: a checkpoint must "
                "not decide which code runs. If the class is yours, name it in your command or config, as in "
                "--model.net my_module.MyNet; in Python, pass the network: load_from_checkpoint(path, net=MyNet(...))."
            )


def _leaves(tree: Any, where: str = "", text_only: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Yield the dotted name of every text, the text, and whether it is a protocol's, which may be a speaker's name."""
    if isinstance(tree, dict):
        text_only = text_only or _is_protocol(tree.get("class_path"))
        for key, value in tree.items():
            yield where, str(key), text_only
            yield from _leaves(value, f"{where}.{key}".removeprefix("."), text_only)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _leaves(value, where, text_only)
    elif isinstance(tree, str):
        yield where, tree, text_only
    elif tree is not None and not isinstance(tree, bool | int | float):
        yield where, f"{type(tree).__module__}.{type(tree).__qualname__}", False


def _is_protocol(path: Any) -> bool:
    import ser.data

    package, _, name = public_path(str(path)).rpartition(".")
    return package == "ser.data" and name in ser.data.__all__ and issubclass(getattr(ser.data, name), ser.data.Protocol)
