"""Which classes data from elsewhere may name: a checkpoint is data, and must not decide which code runs."""

import inspect
import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from ser.errors import UserError

# Text that jsonargparse could take for an import path, a file, or the YAML of a class; names of people may be like it.
SUSPICIOUS = re.compile(r"[{}\n]|\w\.\w|class_path.")


@cache
def registered() -> dict[str, str]:
    """Return the path of every class that a checkpoint may name, public or not, and its public path.

    These are the networks, features, protocols, preprocessing and augmentation of ``ser``, and the optimisers and
    schedules of PyTorch and of ``ser``.
    """
    import torch
    from lightning.pytorch.cli import ReduceLROnPlateau

    import ser.data
    import ser.feature_augment
    import ser.models
    import ser.schedules

    found: dict[str, str] = {}

    def add(package: Any, names: Collection[str]) -> None:
        for name in names:
            cls = getattr(package, name)
            public = f"{package.__name__}.{name}"
            found[public] = public
            found.setdefault(f"{cls.__module__}.{cls.__qualname__}", public)

    def subclasses(package: Any, base: type) -> list[str]:
        return [name for name, cls in inspect.getmembers(package, inspect.isclass) if issubclass(cls, base)]

    add(ser.models, ser.models.__all__)
    add(ser.data, [name for name in ser.data.__all__ if name != "SpeechCorpus"])
    add(ser.feature_augment, ["SpecAugment"])
    add(torch.optim, subclasses(torch.optim, torch.optim.Optimizer))
    add(torch.optim.lr_scheduler, subclasses(torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler))
    add(ser.schedules, subclasses(ser.schedules, torch.optim.lr_scheduler.LRScheduler))
    plateau = f"{ReduceLROnPlateau.__module__}.{ReduceLROnPlateau.__qualname__}"
    found[plateau] = plateau
    return found


def check_classes(settings: dict[str, Any], source: str, named: Collection[str] = ()) -> None:
    """Refuse settings that name a class which is neither registered nor named by the user.

    Nothing is imported or made.

    Args:
        settings: Plain data: descriptions of objects, at any depth.
        source: Where they come from, for the message.
        named: Class paths that the user's own command or config names.

    Raises:
        UserError: One names another class or function, or hides one in text.
    """
    try:
        leaves = list(_leaves(settings))
    except RecursionError as error:
        raise UserError(f"{source} holds settings within settings without end, so nothing was loaded.") from error
    for where, value, text_only in leaves:
        is_class = where.rpartition(".")[2] == "class_path"
        if not is_class and (text_only or not SUSPICIOUS.search(value)):
            continue
        if value not in registered() and value not in named:
            raise UserError(
                f"{source} names {value[:100]!r} as its {where.removesuffix('.class_path')}, which is no network, "
                "feature, protocol, optimiser or schedule of ser or PyTorch, so nothing was loaded: a checkpoint must "
                "not decide which code runs. If the class is yours, name it in your command or config, as in "
                "--model.net my_module.MyNet; in Python, pass the network: load_from_checkpoint(path, net=MyNet(...))."
            )


def _leaves(tree: Any, where: str = "", text_only: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Yield the dotted name of every text, the text, and whether it is a protocol's, which holds names of people."""
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

    package, _, name = registered().get(str(path), "").rpartition(".")
    return package == "ser.data" and issubclass(getattr(ser.data, name), ser.data.Protocol)
