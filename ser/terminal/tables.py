"""Tables in the terminal: text is shown literally, and narrow terminals truncate nothing."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

LETTERS = 3  # of a shortened name, at least
NUMBER = 4  # characters of a column of numbers, without the space after it


class PlainTable(Table):
    """A narrow table of literal text, without Rich's markup.

    Args:
        words: Headers of the columns of text.
        numbers: Headers of the columns of numbers, to the right of these.
        title: Of the table.
        narrow: Leave one space between columns instead of two.
        whole_numbers: Never break a number into two lines, however narrow the columns of words become.
    """

    def __init__(
        self,
        words: Sequence[str],
        numbers: Sequence[str] = (),
        title: str | None = None,
        narrow: bool = False,
        whole_numbers: bool = False,
    ) -> None:
        super().__init__(
            title=None if title is None else literal(title),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 0 if narrow else 1, 0, 0),
            show_edge=False,
        )
        for header in words:
            self.add_column(literal(header), overflow="fold")
        for header in numbers:
            self.add_column(literal(header), justify="right", overflow="fold", no_wrap=whole_numbers)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add a row of texts."""
        super().add_row(*map(literal, cells), **options)


def side_by_side(names: Sequence[str], width: int) -> tuple[list[str], str]:
    """Shorten names to fit as headers of columns: to their first letters, or else to numbers.

    Args:
        names: Different names.
        width: Characters of all columns.

    Returns:
        The headers, and a line that explains them; empty if they are the names.
    """
    width = max(width, len(names) * (NUMBER + 2))
    for headers in (list(names), [_beginning(name, names) for name in names]):
        if sum(max(cell_len(header), NUMBER) + 1 for header in headers) <= width:
            break
    else:
        headers = [str(number) for number in range(1, len(names) + 1)]
    stand_for = [f"{header} {name}" for header, name in zip(headers, names, strict=True) if header != name]
    return headers, literal(f"Columns: {', '.join(stand_for)}.").plain if stand_for else ""


def _beginning(name: str, names: Sequence[str]) -> str:
    """Return the first letters of a name that no other name begins with."""
    beginnings = (name[:letters] for letters in range(LETTERS, len(name)))
    return next((it for it in beginnings if sum(other.startswith(it) for other in names) == 1), name)


def literal(text: str) -> Text:
    """Return literal text for Rich, with control characters replaced."""
    return Text("".join(character if character.isprintable() else "?" for character in text))
