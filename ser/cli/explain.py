"""From the parser's errors to one message: what was found, what is valid, and the nearest valid name."""

import importlib
import inspect
import pkgutil
import re
import traceback
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import audiomentations
import torch
from audiomentations.core.transforms_interface import BaseWaveformTransform
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, callbacks, loggers

import ser.corpora
import ser.data
import ser.models
from ser.errors import UserError
from ser.settings.names import meant

# Last part of an option's name -> package and base class of the classes that it takes.
KINDS: dict[str, tuple[Any, type]] = {
    "data": (ser.corpora, ser.data.SpeechCorpus),
    "net": (ser.models, torch.nn.Module),
    "features": (ser.data, ser.data.Features),
    "protocol": (ser.data, ser.data.Protocol),
    "copies": (audiomentations, BaseWaveformTransform),
    "online": (audiomentations, BaseWaveformTransform),
    "optimizer": (torch.optim, torch.optim.Optimizer),
    "lr_scheduler": (torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
    "callbacks": (callbacks, Callback),
    "logger": (loggers, loggers.Logger),
}
CONFIG = "--config configs/cornn.yaml"
# Arguments that follow from the data or the network, and are not options.
FILLED_IN = {"net": {"num_classes", "feature_shape"}, "optimizer": {"params"}, "lr_scheduler": {"optimizer"}}


def class_names(key: str) -> list[str]:
    """Return the names of the classes that an option takes, by the last part of the option's name."""
    if key not in KINDS:
        return []
    package, base = KINDS[key]
    members = [value for _, value in inspect.getmembers(package, inspect.isclass)]
    return sorted(
        cls.__name__ for cls in members if issubclass(cls, base) and not inspect.isabstract(cls) and cls is not base
    )


def explain(message: str, options: Iterable[str]) -> str:
    """Turn jsonargparse's message into what was found, what is valid, and the nearest valid name.

    Args:
        message: As the parser reports it, several lines for a nested option.
        options: The verb's options, with their dashes.
    """
    where = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    kind = where.rpartition(".")[2]
    classes = re.findall(r"given class_path '([^']+)'", message)
    classes = classes or re.findall(r"Namespace\(class_path='([^']+)'", message)[:1]
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        if not classes:
            return _unknown(f"{where} has no option", found[1], [])
        return _unknown(f"{classes[-1]} has no option", found[1], _arguments(classes[-1]))
    if found := re.search(r"unrecognized arguments: --([\w.]+)", message):
        if classes:  # an option of an option that is a group of its own
            group, _, name = found[1].rpartition(".")
            return _unknown(f"{where}.{group} has no option", name, _arguments(classes[-1], group))
        return _unknown_option(found[1], options)
    if found := re.search(r"does not accept (?:nested key|option) '([^']+)'", message):
        return _unknown_option(found[1], options)
    if found := re.search(r"Multiple subclasses with name (\w+).*ambiguity: (.*)\.", message):
        return f"{where}: there is more than one {found[1]}; give the full name of one: {found[2]}."
    found = re.search(r"Expected a dot import path string: (\S+)", message)
    if found and kind in KINDS:
        return _unknown(f"{where}: there is no", found[1], class_names(kind))
    if found := re.search(r"arguments are required: (.*)", message):
        return _missing(where, classes, found[1].split(", "))
    if found := re.search(r"but is abstract[\s\S]*Given value: (?!ser\.)(\w+\.[\w.]+)", message):
        lacking = sorted(pkgutil.resolve_name(found[1]).__abstractmethods__)
        return f"{where}: {found[1]} is incomplete; it must define {', '.join(lacking)}."
    if re.search(r"but .*\bis abstract", message):  # options of a class that no config names
        return f"{where} must be one of {', '.join(class_names(kind))}; a config names one, as {CONFIG} does."
    if found := re.search(r"argument (\S+): expected one argument", message):
        return f"{found[1]}, or an option below it, lacks its value."
    paths = re.findall(r"(?:class_path'?[ :=]+'?|(?:Given|Got) value: )([\w.]+\.[A-Za-z_]\w*)", message)
    for path in dict.fromkeys(paths if kind in KINDS or classes else ()):
        if problem := import_problem(where, path):
            return problem
    if found := re.search(r"subclass of[\s\S]*?(?:class_path'?[ :=]+'?|value: )([\w.]+\.\w+)", message):
        return class_problem(where, found[1]) or message
    if found := re.search(r"File does not exist: (.*)", message):
        return f"There is no file {found[1]}; --{where} must name an existing one."
    return _wrong_type(where, message) or message


def _wrong_type(where: str, message: str) -> str | None:
    """Say what an option expects and what it was given; None if the message is about something else."""
    phrases = dict.fromkeys(re.findall(r"Expected an? (.*?)(?:\. Got value.*)?$", message, re.MULTILINE))
    wanted = [phrase for phrase in phrases if not re.match(r"<class 'NoneType'>|path but|dot import", phrase)]
    if not wanted:
        return None
    plain = [re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", phrase).replace("typing.Literal", "one of ") for phrase in wanted]
    given = re.findall(
        r"(?:Given|Got) value: (?!Namespace)(?:NestedArg\(.*?val=)?(.+?)\)?(?:\. Got.*)?$", message, re.MULTILINE
    )
    found = given[0].strip("'") if given else None
    return f"{where}: expected {', or '.join(plain)}" + (f"; found {found!r}." if found else ".")


def _unknown(what: str, name: str, valid: Iterable[str], listed: bool = True) -> str:
    valid = sorted(valid)
    names = f" Valid: {', '.join(valid)}." if valid and listed else ""
    return f"{what} {name!r}.{meant(name, valid)}{names}"


def _unknown_option(name: str, options: Iterable[str]) -> str:
    name = re.sub(r"\.(class_path|init_args)\b.*", "", name)  # as a config has it
    return _unknown("There is no option", f"--{name}", [o for o in options if not o.endswith(".help")], listed=False)


def _missing(where: str, classes: list[str], names: list[str]) -> str:
    """Say which options of a class or of a verb must be given."""
    if classes:
        wanted = " and ".join(f"--{where}.{name}" for name in names)
        return f"{where}: {classes[-1].rpartition('.')[2]} needs {wanted}."
    options = " and ".join(f"--{re.sub(r'^(fit|validate|test|predict)[.]', '', name)}" for name in names)
    return f"{options} must be given; a config does that, as in {CONFIG}."


def class_problem(where: str, path: str) -> str | None:
    """Say why an option cannot take a class: it cannot be imported, or has another base class; None if it can.

    Args:
        where: The option, without its dashes.
        path: Module and name of the class.
    """
    kind = where.rpartition(".")[2]
    if (problem := import_problem(where, path)) or kind not in KINDS:
        return problem
    cls, base = pkgutil.resolve_name(path), KINDS[kind][1]
    if inspect.isclass(cls) and issubclass(cls, base):
        return None
    valid = ", ".join(class_names(kind))
    return f"{where}: {path} is not a subclass of {base.__name__}. Valid: {valid}, or a class of your own."


def import_problem(where: str, path: str) -> str | None:
    """Say why a class cannot be imported, see :func:`class_problem`."""
    module, _, name = path.rpartition(".")
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # the user's module may raise any
        lacking = error.name if isinstance(error, ModuleNotFoundError) else None
        if lacking and f"{module}.".startswith(f"{lacking}."):
            return f"{where}: there is no module {lacking!r}, neither installed nor in the working folder {Path.cwd()}."
        return f"{where}: could not import {path}: {import_error(error)}"
    if not hasattr(imported, name):
        members = inspect.getmembers(imported, inspect.isclass)
        own = [member for member, cls in members if not member.startswith("_") and cls.__module__.startswith(module)]
        return _unknown(f"{where}: the module {module} has no", name, own)
    return None


def import_error(error: Exception) -> str:
    """Describe the error of a module, with its innermost line outside the import system."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frame = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename][-1]
    return f"{frame.filename}, line {frame.lineno}: {type(error).__name__}: {error}"


def _arguments(class_path: str, group: str = "") -> list[str]:
    """Return the options of a class: its arguments, with those that ``**kwargs`` passes to its base classes."""
    names: list[str] = []
    for base in pkgutil.resolve_name(class_path).__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base).parameters.values()
        names += [parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD]
        if group in names:
            return list(inspect.signature(typing.get_type_hints(base.__init__)[group]).parameters)
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names


def answer_help(args: Sequence[str]) -> None:
    """Answer ``--data.protocol.help`` and ``--data.protocol.help NAME``, and likewise for every option with a class.

    jsonargparse answers only if the class of the outer option is known, and with half of the names.

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
    parser = ArgumentParser(usage=f"--{key} {name} [options]", add_help=False)
    parser.add_class_arguments(pkgutil.resolve_name(path), key, skip=FILLED_IN.get(kind), fail_untyped=False)
    return parser.format_help()
