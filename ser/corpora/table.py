"""A corpus of your own, described by a table."""

import codecs
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ser.corpora.base import BadFile
from ser.corpora.own import OwnCorpus
from ser.errors import UserError
from ser.features.audio import READABLE, UNREADABLE, audio_files
from ser.protocols.splits import PARTITIONS, Gender, Utterance
from ser.settings.names import Name, meant, renaming

NEEDED = ("file", "emotion", "speaker")
OPTIONAL = ("gender", "session", "sentence", "split")
GENDERS: dict[str, Gender] = {"female": "female", "f": "female", "male": "male", "m": "male"}
SUFFIXES = (".csv", ".tsv")
Row = dict[str, str]  # our column -> content of the cell, stripped


class Table(OwnCorpus):
    """A corpus of your own: a CSV or TSV file with a line per recording, and no code.

    The first line names the columns: file, emotion, speaker, and if you like gender (female or male), session,
    sentence, and split (train, val or test). Other columns are ignored. A path is relative to the table's folder, or
    absolute.

    Args:
        root: The table, or a folder that holds it and no other table.
        columns: Names of your columns where they differ: ``{"file": "path", "speaker": "actor_id"}``.
        kwargs: Every option of `SpeechCorpus`.
    """

    name = "Table"
    homepage = "a CSV file with the columns file, emotion and speaker"
    layout = (
        "a CSV or TSV file with the columns file (a path relative to the table's folder), emotion and speaker, or the "
        "folder that holds it"
    )

    def __init__(self, root: str | Path | None = None, columns: dict[Name, Name] | None = None, **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)
        self.columns = renaming(columns)
        unknown = sorted(set(self.columns or {}) - {*NEEDED, *OPTIONAL})
        if unknown:
            raise UserError(
                f"columns names {', '.join(unknown)}; its keys must be among {', '.join((*NEEDED, *OPTIONAL))}, "
                'and its values the names in your table, as in {"file": "path"}.'
            )

    def locate(self) -> Path:
        """Return the table's folder.

        Raises:
            UserError: No root was given, or there is not exactly one table.
        """
        return _find(super().locate()).parent

    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        """Read the table, line by line.

        Raises:
            UserError: The table cannot be read, or a line is invalid.
        """
        table = self.root if self.root is not None and self.root.is_file() else _find(root)
        first_line: dict[Path, int] = {}
        hint: str | None = None
        for line, row in _rows(table, self.columns or {}):
            where = f"Line {line} of {table}"
            empty = [column for column in NEEDED if not row[column]]
            if empty:
                raise UserError(f"{where} has no {' and no '.join(empty)}; every recording needs it.")
            path = table.parent / row["file"].replace("\\", "/")
            if path in first_line:
                raise UserError(f"{where} repeats {row['file']} of line {first_line[path]}; keep one of them.")
            first_line[path] = line
            if not os.path.isfile(path):  # unlike Path, whatever the name
                hint = _elsewhere(row["file"], table.parent) if hint is None else ""  # for the first file only
                yield BadFile(path, f"named in line {line} of {table.name}, but the file does not exist{hint}")
                continue
            yield Utterance(
                path,
                emotion=row["emotion"],
                speaker=row["speaker"],
                gender=GENDERS[_choice(row, "gender", GENDERS, where)] if row.get("gender") else None,
                session=row.get("session") or None,
                sentence=row.get("sentence") or None,
                split=_choice(row, "split", PARTITIONS, where) if row.get("split") else None,
            )


def _elsewhere(path: str, folder: Path) -> str:
    """Suggest a recording below the folder whose path has the same end, apart from case and suffix."""
    end = f"/{PurePosixPath(path.replace(chr(92), '/')).with_suffix('')}".casefold()
    there = (recording.relative_to(folder) for recording in audio_files(folder))
    like = (name for name in there if f"/{name.with_suffix('').as_posix()}".casefold().endswith(end))
    return f"; did you mean {found.as_posix()}?" if (found := next(like, None)) else ""


def _find(root: Path) -> Path:
    if root.is_file():
        return root
    tables = sorted(p for p in root.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if len(tables) != 1:
        found = f"{len(tables)} tables ({', '.join(p.name for p in tables)})" if tables else "no .csv or .tsv file"
        raise UserError(f"{root} holds {found}; give the path of the table itself with --data.root.")
    return tables[0]


def _rows(table: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, Row]]:
    """Yield line number and cells of every non-blank row."""
    text = _text(table)
    shown = re.search(r"[^\r\n]*\S[^\r\n]*", text)
    separator = re.match(r'"?sep=(.)"?\s*$', shown[0]) if shown else None  # a hint for Excel
    first = re.sub(r'"[^"]*"', "", shown[0]) if shown else ""
    tabs = table.suffix.lower() == ".tsv" and "\t" in first
    delimiter = separator[1] if separator else "\t" if tabs else max(",;\t", key=first.count)
    rows = ((line, cells) for line, cells in _split(table, text, delimiter) if any(cells))
    if separator:
        next(rows)
    names = _without_padding(next(rows, (1, []))[1])
    place = _places(table, names, columns)
    for line, cells in rows:
        cells = _without_padding(cells, len(names))
        if len(cells) != len(names):
            fix = "no cell may hold a tab" if delimiter == "\t" else f'put cells that hold a {delimiter!r} in "quotes"'
            raise UserError(f"Line {line} of {table} has {len(cells)} cells, the first line {len(names)}; {fix}.")
        yield line, {column: cells[k] for column, k in place.items()}


def _text(table: Path) -> str:
    try:
        content = table.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # Excel's "Unicode text"
        text = content.decode("utf-16" if wide else "utf-8-sig")  # spreadsheets write a byte-order mark
    except OSError as error:
        raise UserError(f"{table} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{table} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error
    if "\0" in text:
        raise UserError(f"{table} is not UTF-8 text (it holds zero bytes); save it as UTF-8.")
    return text


def _split(table: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number of each row and its stripped cells.

    The csv module lets a quote at the start of a cell run on to the next quote, even rows further down. Here a cell is
    quoted only if the closing quote ends it. In tab-separated tables, where transcripts are often unquoted, other
    quotes are text, and no cell holds a tab.

    Raises:
        UserError: In a comma- or semicolon-separated table, a quote opens a cell and does not close it, or only rows
            further down.
    """
    quoted = r'(?:[^"\t]|"")*+' if delimiter == "\t" else r'(?:[^"]|"")*+'
    cut = re.escape(delimiter)
    line, begin, cells = 1, 1, list[str]()
    for match in re.finditer(rf'(?: *"({quoted})" *|([^{cut}\r\n]*))({cut}|\r\n?|\n)', text.rstrip("\r\n") + "\n"):
        inside, plain, end = match.groups()
        open_quote = plain is not None and plain.lstrip().startswith('"')
        swallowed = (
            inside is not None and re.search(r"[\r\n]", inside) and _names_recording(re.split(rf"{cut}|\r|\n", inside))
        )
        if delimiter != "\t" and (open_quote or swallowed):
            raise UserError(
                f'Line {line} of {table}: a quote (") opens a cell and does not close at its end. Write quotes '
                'inside a cell as "so ""quoted"" it is", or remove the quote.'
            )
        cells.append((plain if inside is None else inside.replace('""', '"')).strip())
        line += len(re.findall(r"\r\n?|\n", match[0]))
        if end != delimiter:
            yield begin, cells
            begin, cells = line, []


def _names_recording(pieces: list[str]) -> bool:
    return any(Path(piece.strip()).suffix.lower() in READABLE | UNREADABLE for piece in pieces)


def _without_padding(cells: list[str], least: int = 0) -> list[str]:
    """Drop empty cells at the end, which spreadsheets add, but keep a minimum number."""
    while len(cells) > least and not cells[-1]:
        cells = cells[:-1]
    return cells


def _places(table: Path, names: list[str], columns: Mapping[str, str]) -> dict[str, int]:
    """Find our columns among the table's: column -> position."""
    folded = [name.casefold() for name in names]
    wanted = {column: columns.get(column, column) for column in (*NEEDED, *OPTIONAL)}
    lacking = [
        name for column, name in wanted.items() if name.casefold() not in folded and column in {*NEEDED, *columns}
    ]
    if lacking:
        raise UserError(
            f"{table} lacks the columns {', '.join(lacking)}; it has {', '.join(names) or '(none)'}. The first line "
            f"must name {', '.join(NEEDED)}; map other names, as in --data.columns.file path. "
            f"Speakers are needed to keep those of the test out of training.{meant(lacking[0], names)}"
        )
    twice = [name for name in wanted.values() if folded.count(name.casefold()) > 1]
    if twice:
        raise UserError(f"{table} has more than one column named {', '.join(twice)}; rename or remove one.")
    return {column: folded.index(name.casefold()) for column, name in wanted.items() if name.casefold() in folded}


def _choice(row: Row, column: str, valid: Collection[str], where: str) -> str:
    value = row[column].lower()
    if value not in valid:
        raise UserError(f"{where} has the {column} {row[column]!r}; it must be {', '.join(valid)}, or empty.")
    return value
