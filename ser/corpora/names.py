"""Corpora whose file names say everything about a recording."""

import filecmp
import re
from collections.abc import Iterator
from pathlib import Path

from ser.data import BadFile
from ser.data.audio import audio_files


def named_files(root: Path, pattern: str, example: str) -> Iterator[tuple[Path, re.Match[str]] | BadFile]:
    """Match every audio file below a folder.

    A recording is what the groups of the pattern say it is. Copies of a corpus exist that hold every file twice, in
    two folders; of files with equal groups and equal bytes the first is taken, and the others do not count.

    Args:
        root: Folder of the corpus.
        pattern: Regular expression, upper and lower case alike, for the end of a path: file name without suffix,
            and folders where they matter, divided by forward slashes.
        example: A right name, for the message about a wrong one.

    Yields:
        Path and match; or a `BadFile` for a name that does not match, or that says it is a recording that another file,
        with other content, also says it is.
    """
    whole = re.compile(rf"(?:.*/)?{pattern}", re.IGNORECASE | re.ASCII)
    seen: dict[tuple[str | None, ...], Path] = {}
    for path in audio_files(root):
        match = whole.fullmatch(path.absolute().with_suffix("").as_posix())
        if match is None:
            yield BadFile(path, f"not named like {example}")
            continue
        first = seen.setdefault(match.groups(), path)
        if first is path:
            yield path, match
        elif not filecmp.cmp(first, path, shallow=False):
            yield BadFile(path, f"named as the same recording as {first}, but differs from it; keep one copy")
