"""Corpora whose file names say everything about a recording."""

import filecmp
import re
from collections.abc import Iterator
from pathlib import Path

from ser.corpora.base import BadFile
from ser.features.audio import UNREADABLE, audio_files


def named_files(root: Path, pattern: str, form: str, example: str) -> Iterator[tuple[Path, re.Match[str]] | BadFile]:
    """Match every audio file below a folder.

    A recording is what the groups of the pattern say it is. Copies of a corpus exist that hold every file twice, in
    two folders; of files with equal groups and equal bytes the first is taken, and the others do not count. Nor does a
    film or a file of another format that libsndfile does not read, where one of equal groups is there that it reads.

    Args:
        root: Folder of the corpus.
        pattern: Regular expression, upper and lower case alike, for the end of a path: file name without suffix,
            and folders where they matter, divided by forward slashes.
        form: The same for all that looks like the corpus, or lies in one of its folders, if not named rightly: a file
            that does not is foreign.
        example: A right name, for the message about a wrong one.

    Yields:
        Path and match; or a `BadFile` for a name that does not match, or that says it is a recording that another file,
        with other content, also says it is.
    """
    whole = re.compile(rf"(?:.*/)?{pattern}", re.IGNORECASE | re.ASCII)
    ours = re.compile(rf"(?:.*/)?(?:{form})", re.IGNORECASE | re.ASCII)
    above = root.absolute().parent  # the root itself may be a folder that says something
    seen: dict[tuple[str | None, ...], Path] = {}
    for path in sorted(audio_files(root), key=_is_unreadable):
        match = whole.fullmatch(path.absolute().with_suffix("").as_posix())
        if match is None:
            place = path.absolute().relative_to(above).with_suffix("").as_posix()
            yield BadFile(path, f"not named like {example}", foreign=ours.fullmatch(place) is None)
            continue
        first = seen.setdefault(match.groups(), path)
        if first is path:
            yield path, match
        elif _is_unreadable(path) == _is_unreadable(first) and not filecmp.cmp(first, path, shallow=False):
            yield BadFile(path, f"named as the same recording as {first}, but differs from it; keep one copy")


def _is_unreadable(path: Path) -> bool:
    return path.suffix.lower() in UNREADABLE
