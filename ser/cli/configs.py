"""The config files of a command line, read before the parser reads them, to name file and line of a mistake."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ser.errors import UserError, WrongRoot, user_error_behind
from ser.settings.config_yaml import load, plain

OPTIONS = ("--config", "-c")


class Configs:
    """The config files that a command line names, in their order.

    Args:
        args: The command line, with or without its verb.

    Attributes:
        arguments: The command line with the configs before all other options, so that options win over configs
            wherever they stand.
        files: The content of every file by its name as given.

    Raises:
        UserError: A file cannot be read, is not YAML, or holds something else than options.
    """

    def __init__(self, args: Sequence[str]) -> None:
        verb = [word for word in args[:1] if not word.startswith("-")]
        configs: list[str] = []
        others: list[str] = []
        self.files: dict[str, dict[str, Any]] = {}
        rest = iter(args[len(verb) :])
        for word in rest:
            name, given, value = word.partition("=")
            if name not in OPTIONS:
                others.append(word)
                continue
            file = value if given else next(rest, None)
            if file is None:
                others.append(word)  # the parser reports the missing value
                continue
            configs += ["--config", file]
            if Path(file).exists():  # otherwise the parser reports it
                self.files[file] = _read(file)
        self.arguments = [*verb, *configs, *others]

    def option(self, name: str) -> Any:
        """Return the value of a top-level option, of the command line or the last config; None if not given."""
        given = option(self.arguments, f"--{name}")
        if given is not None:
            return None if given == "null" else given
        return next((content[name] for content in reversed(self.files.values()) if name in content), None)

    @contextmanager
    def naming_corpus(self) -> Iterator[None]:
        """Add to an error about the folder of a corpus which config has named the corpus.

        Raises:
            UserError: There is such an error, and the command line does not name the corpus.
        """
        try:
            yield
        except Exception as error:
            wrong = user_error_behind(error)
            named = [(_corpus(content), file) for file, content in self.files.items() if _corpus(content)]
            if not isinstance(wrong, WrongRoot) or option(self.arguments, "--data") or not named:
                raise
            corpus, file = named[-1]
            raise UserError(
                f"{wrong}\nThe config {file} names the corpus {corpus}: for another, add --data NAME, such as EmoDB."
            ) from None


def option(args: Sequence[str], name: str) -> str | None:
    """Return the value of an option before parsing, the last if it is given more than once."""
    value = None
    for position, argument in enumerate(args):
        if argument == name and position + 1 < len(args):
            value = args[position + 1]
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def _corpus(config: dict[str, Any]) -> str | None:
    """Return the name of the corpus's class, if a config gives it."""
    data = config.get("data")
    path = data.get("class_path") if isinstance(data, dict) else data
    return path.rpartition(".")[2] if isinstance(path, str) else None


def _read(file: str) -> dict[str, Any]:
    try:
        content = plain(load(Path(file).read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"The config {file} cannot be read: {error.strerror}. --config takes a YAML file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The config {file} is not text in UTF-8; --config takes a YAML file.") from error
    except yaml.YAMLError as error:
        raise UserError(f"The config {file} is not valid YAML: {_where(error)}") from error
    if not isinstance(content, dict):
        found = "is empty" if content is None else f"holds {content!r:.40}"
        raise UserError(
            f"The config {file} {found}; it must hold options with their values, as configs/cornn.yaml does."
        )
    return content


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}." if mark is not None else f"{problem}."
