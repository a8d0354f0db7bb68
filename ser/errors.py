"""Errors that end the command line with a message instead of a traceback."""

import errno
import os
from collections.abc import Collection
from pathlib import Path


class UserError(Exception):
    """Invalid input: the message says what was found, what was expected, and how to fix it.

    The command line prints the message without a traceback, and exits with code 2.
    """


class WrongRoot(UserError):
    """A folder is not that of the corpus: another folder or corpus was meant."""


class JobEnded(Exception):
    """The run ended early, although the input is valid: a process was lost, say, or training diverged.

    Args:
        message: What happened, and how to continue.
        code: Exit code of the command line.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Check that an option has one of its valid values.

    Raises:
        UserError: It has another.
    """
    if value not in choices:
        raise UserError(f"{name} is {value!r}; choose one of {', '.join(map(str, choices))}.")


def user_error_behind(error: BaseException | None) -> UserError | None:
    """Return the UserError that caused an error, if any; jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def cannot_create(folder: Path, error: OSError, place: str = "--run.root", name: str = "--run.name") -> UserError:
    """Return the error of a folder that cannot be created, with the options for another place or name.

    Args:
        folder: The folder.
        error: The cause.
        place: Option for its parent folder.
        name: Option for its name.
    """
    advice = f"Choose another place with {place}."
    if error.errno == errno.ENAMETOOLONG:
        long = max(folder.parts, key=lambda part: len(os.fsencode(part)))
        advice = f"{long[:20]}… has {len(os.fsencode(long))} bytes, a name may have 255: give a shorter {name}."
    return UserError(f"The folder {folder} cannot be created: {error.strerror or error}. {advice}")
