"""The parser of Lightning's verbs: a mistake gets one message, which says what is valid."""

import inspect
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
import yaml
from audiomentations.core.transforms_interface import BaseWaveformTransform
from jsonargparse import Namespace, get_loader, set_dumper, set_loader
from jsonargparse.typing import register_type
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

import ser.models
from ser.cli.explain import explain, import_error
from ser.errors import UserError
from ser.settings.config_yaml import dump, load, plain
from ser.settings.names import Name, OptionalName, as_name

# Classes of libraries, whose errors are not UserErrors.
OF_LIBRARIES = (
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
    BaseWaveformTransform,
    Logger,
    Callback,
    *(network for name, network in inspect.getmembers(ser.models, inspect.isclass)),  # which are torch's layers
)
LIBRARIES = ("ser", "torch", "audiomentations", "lightning")


def _load(text: str) -> Any:
    """Read an option's value, or a config."""
    value = load(text)
    if isinstance(value, dict | list):
        return value
    if value is None and text.lstrip().startswith("#") and "\n" not in text:
        return text  # not a comment: a value that begins like one
    return get_loader("yaml")(text)  # a single value, which the option's type converts


def _name(value: Any) -> str:
    if isinstance(value, dict | list):
        raise ValueError("Expected a name")
    return as_name(value)


set_loader("ser", _load, (yaml.YAMLError,))
set_dumper("ser", dump)
set_dumper("yaml", dump)  # which LightningCLI asks for by name
for _type, _read in {Name: _name, OptionalName: lambda value: None if value is None else _name(value)}.items():
    register_type(_type, lambda value: value, _read, type_check=lambda value, _: type(value) is str)
register_type(torch.device)  # StochasticWeightAveraging has one as default, which config.yaml must hold


class Parser(LightningArgumentParser):
    """LightningCLI's parser without abbreviated options; it raises instead of exiting, and leaves names as text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("parser_mode", "ser")
        kwargs.setdefault("usage", "%(prog)s [options]")  # a hundred options are listed once, below it
        super().__init__(*args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parse a command line.

        Raises:
            UserError: A mistake, or an error in the user's own module.
        """
        try:
            config: Namespace = plain(super().parse_args(*args, **kwargs))
        except UserError:
            raise
        except Exception as error:
            if any(frame.name == "import_object" for frame in traceback.extract_tb(error.__traceback__)):
                raise UserError(f"Could not import a class of your own: {import_error(error)}") from error
            raise
        return config

    def instantiate(
        self, namespace: Namespace, instantiate_groups: bool = True, *, instantiators: Any = None
    ) -> Namespace:
        """Construct the objects of a config.

        Raises:
            UserError: A class of a library rejects its arguments.
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
    except (ValueError, TypeError, AssertionError, ImportError, MisconfigurationException) as error:
        if cls.__module__.partition(".")[0] not in LIBRARIES:
            raise  # the user's own class: its author needs the traceback
        defaults = inspect.signature(cls).parameters
        given = {name: value for name, value in kwargs.items() if value != getattr(defaults.get(name), "default", None)}
        raise could_not_construct(cls.__name__, given, error) from error


def could_not_construct(name: str, arguments: Mapping[str, Any], error: Exception) -> UserError:
    """Say why a class of a library rejects its arguments."""
    given = ", ".join(f"{name}={value}" for name, value in arguments.items())
    why = str(error) or "an argument is out of range, or names something that does not exist"
    return UserError(f"Could not construct {name}({given}): {why.rstrip('.!')}.")
