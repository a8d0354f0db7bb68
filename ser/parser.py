"""The parser of Lightning's verbs: a mistake gets one message, which says what would have been valid."""

import difflib
import importlib
import inspect
import re
import typing
from collections.abc import Iterable
from typing import Any, NoReturn

import audiomentations
import torch
import yaml
from audiomentations.core.transforms_interface import BaseWaveformTransform
from jsonargparse import Namespace, get_loader, set_dumper, set_loader
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

import ser.corpora
import ser.data
import ser.models
from ser.config_yaml import dump, load, plain
from ser.errors import UserError
from ser.names import Name, OptionalName, as_name

# Made by libraries, whose errors are no UserErrors.
OF_LIBRARIES = (BaseWaveformTransform, torch.optim.Optimizer)


def _classes(key: str) -> list[str]:
    """Return the names of the classes that an option takes, by the last part of the option's name."""
    named: dict[str, tuple[Any, type]] = {
        "data": (ser.corpora, ser.data.SpeechCorpus),
        "net": (ser.models, torch.nn.Module),
        "features": (ser.data, ser.data.Features),
        "protocol": (ser.data, ser.data.Protocol),
        "copies": (audiomentations, BaseWaveformTransform),
        "online": (audiomentations, BaseWaveformTransform),
        "optimizer": (torch.optim, torch.optim.Optimizer),
        "lr_scheduler": (torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
    }
    if key not in named:
        return []
    package, base = named[key]
    members = [value for _, value in inspect.getmembers(package, inspect.isclass)]
    return sorted(
        cls.__name__ for cls in members if issubclass(cls, base) and not inspect.isabstract(cls) and cls is not base
    )


def _load(text: str) -> Any:
    """Read an option's value, or a config."""
    value = load(text)
    if isinstance(value, dict | list):
        return value
    if value is None and text.lstrip().startswith("#") and "\n" not in text:
        return text  # no comment, but a value that begins like one
    return get_loader("yaml")(text)  # a single value, of which the option's type makes what it is


def _name(value: Any) -> str:
    if isinstance(value, dict | list):
        raise ValueError("Expected a name")
    return as_name(value)


set_loader("ser", _load, (yaml.YAMLError,))
set_dumper("ser", dump)
set_dumper("yaml", dump)  # which LightningCLI asks for by name
for _type, _read in {Name: _name, OptionalName: lambda value: None if value is None else _name(value)}.items():
    register_type(_type, lambda value: value, _read, type_check=lambda value, _: type(value) is str)


class Parser(LightningArgumentParser):
    """LightningCLI's parser, which refuses abbreviated options, raises instead of exiting, and leaves names as text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("parser_mode", "ser")
        kwargs.setdefault("usage", "%(prog)s [options]")  # a hundred options are listed once, below it
        super().__init__(*args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse a command line."""
        config: Namespace = plain(super().parse_args(*args, **kwargs))
        return config

    def instantiate(
        self, namespace: Namespace, instantiate_groups: bool = True, *, instantiators: Any = None
    ) -> Namespace:
        """Make the objects of a config.

        Raises:
            UserError: A class of a library refuses its arguments.
        """
        instantiators = instantiators or [(_make, base, True) for base in OF_LIBRARIES]
        made: Namespace = super().instantiate(namespace, instantiate_groups, instantiators=instantiators)
        return made

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Report a mistake.

        Raises:
            UserError: Always.
        """
        if not self.exit_on_error:  # a parser within the parser; the outer one reports
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        options = [option for action in parser._actions for option in action.option_strings]
        raise UserError(explain(message, options)) from ex


def _make(cls: type, *args: Any, **kwargs: Any) -> Any:
    try:
        return cls(*args, **kwargs)
    except (ValueError, AssertionError) as error:
        given = ", ".join(f"{name}={value}" for name, value in kwargs.items())
        why = str(error) or "one of these is out of its range, or names nothing that is there"
        raise UserError(f"{cls.__name__} cannot be made with {given}: {why}.") from error


def explain(message: str, options: Iterable[str]) -> str:
    """Turn jsonargparse's message into what was found, what is valid, and the nearest valid name.

    Args:
        message: As the parser reports it, several lines for a nested option.
        options: The verb's options, with their dashes.
    """
    keys = re.findall(r'Parser key "([^"]+)"', message)
    where = ".".join(keys)
    classes = re.findall(r"given class_path '([^']+)'", message)
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        if not classes:
            return _unknown(f"{where} has no option", found[1], [])
        return _unknown(f"{classes[-1]} has no option", found[1], _arguments(classes[-1]))
    if found := re.search(r"unrecognized arguments: --([\w.]+)", message):
        if classes:  # an option of an option that is a group of its own
            group, _, name = found[1].rpartition(".")
            return _unknown(f"{where}.{group} has no option", name, _arguments(classes[-1], group))
        return _unknown("There is no option", f"--{found[1]}", options, listed=False)
    if found := re.search(r"does not accept (?:nested key|option) '([^']+)'", message):
        return _unknown("There is no option", f"--{found[1]}", options, listed=False)
    if found := re.search(
        r"Expected a dot import path string: (\S+)|module '[\w.]+' has no attribute '(\w+)'", message
    ):
        return _unknown(f"{where}: there is no", found[1] or found[2], _classes(where.rpartition(".")[2]))
    if found := re.search(r"arguments are required: (.*)", message):
        return f"{found[1]} must be given; a config does that, as in --config configs/cornn.yaml."
    if found := re.search(r"but is abstract[\s\S]*Given value: (?!ser\.)(\w+\.[\w.]+)", message):
        return f"{where}: {found[1]} is incomplete; it must define {', '.join(_lacking(found[1]))}."
    if re.search(r"but .*\bis abstract", message):  # options were given to what no config names
        names = ", ".join(_classes(where.rpartition(".")[2]))
        return f"{where} must be one of {names}; a config names one, as --config configs/cornn.yaml does."
    if found := re.search(r"File does not exist: (.*)", message):
        return f"There is no file {found[1]}; --{where} must name an existing one."
    expected = re.findall(r"Expected an? (.*)", message)
    if wanted := [phrase for phrase in dict.fromkeys(expected) if "NoneType" not in phrase]:
        plain = [re.sub(r"<class '(\w+)'>", r"\1", phrase).replace("typing.Literal", "one of ") for phrase in wanted]
        return f"{where}: expected {', or '.join(plain)}"
    return message


def _unknown(what: str, name: str, valid: Iterable[str], listed: bool = True) -> str:
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    names = f" Valid: {', '.join(valid)}." if valid and listed else ""
    return f"{what} {name!r}.{meant}{names}"


def _lacking(class_path: str) -> list[str]:
    """Return the methods that a class must have and has not."""
    module, _, name = class_path.rpartition(".")
    return sorted(getattr(importlib.import_module(module), name).__abstractmethods__)


def _arguments(class_path: str, group: str = "") -> list[str]:
    """Return the options of a class: its arguments, with those that ``**kwargs`` hands to its base classes."""
    module, _, name = class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    names: list[str] = []
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base).parameters.values()
        names += [parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD]
        if group in names:
            return list(inspect.signature(typing.get_type_hints(base.__init__)[group]).parameters)
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    return names
