"""Answers to a question for the options of a class, or for the classes that an option takes."""

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

from ser.cli.explain import KINDS, class_names, class_problem
from ser.errors import UserError

# Arguments that follow from the data or the network, and are no options.
FILLED_IN = {"net": {"num_classes", "feature_shape"}, "optimizer": {"params"}, "lr_scheduler": {"optimizer"}}


def answer_help(args: Sequence[str]) -> None:
    """Answer ``--data.protocol.help`` and ``--data.protocol.help NAME``, and so for every option that takes a class.

    jsonargparse answers only where the class of the outer option is known already, and with half of the names.

    Args:
        args: The command line.

    Raises:
        SystemExit: It was answered, code 0.
        UserError: There is no such class.
    """
    for position, word in enumerate(args):
        option, _, name = word.partition("=")
        key = option.removeprefix("--").removesuffix(".help")
        if key.rpartition(".")[2] in KINDS and option == f"--{key}.help":
            name = name or next((word for word in args[position + 1 : position + 2] if not word.startswith("-")), "")
            print(_options(key, name) if name else _choices(key), end="")
            raise SystemExit(0)


def _choices(key: str) -> str:
    kind = key.rpartition(".")[2]
    first = {
        name: (inspect.getdoc(getattr(KINDS[kind][0], name)) or "").partition("\n")[0] for name in class_names(kind)
    }
    width = max(map(len, first))
    lines = [f"  {name:{width}}  {says}" for name, says in first.items()]
    return "\n".join([f"--{key} takes one of these, or the path of a class of your own:", *lines, ""]) + (
        f"The options of one: --{key}.help NAME\n"
    )


def _options(key: str, name: str) -> str:
    kind = key.rpartition(".")[2]
    package = KINDS[kind][0].__name__
    path = name if "." in name else f"{package}.{name}"
    if problem := class_problem(key, path):
        raise UserError(problem)
    cls: Any = getattr(importlib.import_module(path.rpartition(".")[0]), path.rpartition(".")[2])
    parser = ArgumentParser(usage=f"--{key} {name} [options]", add_help=False)
    parser.add_class_arguments(cls, key, skip=FILLED_IN.get(kind), fail_untyped=False)
    return parser.format_help()
