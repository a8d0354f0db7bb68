"""Names of speakers, sessions, sentences, emotions, runs and experiments. They are text.

An option that is a name has the type `Name` or `OptionalName`: it gets the text as written, where YAML would turn 0010
into a number, yes into a boolean, and null into nothing.
"""

import difflib
import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Name = str
    OptionalName = str | None
else:

    class Name(str):
        """Type of an option that is a name, or of each name in a list or mapping; the value is a plain string."""

    class OptionalName(str):
        """Type of an option that is a name, or null."""


def as_name(value: object) -> str:
    """Return the text of a name; numbers of our parser keep theirs in ``text``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "text", value))


def as_names(values: Iterable[Any] | None) -> list[str] | None:
    """Return a list of names as text."""
    return None if values is None else [as_name(value) for value in values]


def renaming(names: Mapping[Any, Any] | None) -> dict[str, str] | None:
    """Return a mapping of names to names as text."""
    return None if names is None else {as_name(key): as_name(value) for key, value in names.items()}


def meant(wrong: str, names: Iterable[str]) -> str:
    """Return the question whether the most similar name was meant, after a space, or nothing."""
    names = sorted(set(names))
    alike = [name for name in names if likeness(name) == likeness(wrong)]
    close = alike or difflib.get_close_matches(wrong, names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def some(names: Sequence[str], most: int = 5) -> str:
    """List the first names, and count the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Group names that differ only in case, spaces around them, Unicode form, or leading zeros."""
    alike: dict[str, set[str]] = defaultdict(set)
    for name in names:
        alike[likeness(name)].add(name)
    return [sorted(group) for _, group in sorted(alike.items()) if len(group) > 1]


@functools.cache
def likeness(name: str) -> str:
    """Return the common form of names that look alike."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", folded)
