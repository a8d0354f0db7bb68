"""Corpora whose file names say everything about a recording."""

import filecmp
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from ser.corpora.base import BadFile, SpeechCorpus
from ser.features.audio import UNREADABLE, audio_files
from ser.protocols.splits import Utterance


class NamedCorpus(SpeechCorpus):
    """Base class: a corpus whose file names say everything, see :func:`named_files`."""

    pattern: ClassVar[str]
    form: ClassVar[str]
    example: ClassVar[str]

    @abstractmethod
    def parse(self, path: Path, groups: Sequence[str]) -> Utterance | None:
        """Return the utterance of a recording, or None for one that is not of the corpus."""

    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        """Parse the names of all audio files."""
        for item in named_files(root, self.pattern, self.form, self.example):
            if isinstance(item, BadFile):
                yield item
            elif utterance := self.parse(*item):
                yield utterance


def named_files(root: Path, pattern: str, form: str, example: str) -> Iterator[tuple[Path, Sequence[str]] | BadFile]:
    """Match every audio file below a folder.

    The groups of the pattern identify a recording. Some copies of corpora hold every file twice, in two folders: of
    files with equal groups and equal bytes the first is taken. A video, or an audio file that libsndfile cannot read,
    does not count where a readable file has the same groups.

    Args:
        root: Folder of the corpus.
        pattern: Regular expression, case-insensitive, for the end of a path: file name without suffix, and folders
            where they matter, separated by forward slashes.
        form: The same for everything that looks like the corpus, or lies in one of its folders; files that do not match
            it are foreign.
        example: A valid name, for messages.

    Yields:
        Path and groups; or a `BadFile` for a name that does not match, or for a second recording of the same name with
        other content.
    """
    whole = re.compile(rf"(?:.*/)?{pattern}", re.IGNORECASE | re.ASCII)
    ours = re.compile(rf"(?:.*/)?(?:{form})", re.IGNORECASE | re.ASCII)
    above = root.absolute().parent  # the name of the root itself may matter
    seen: dict[tuple[str | None, ...], Path] = {}
    for path in sorted(audio_files(root), key=_is_unreadable):
        match = whole.fullmatch(path.absolute().with_suffix("").as_posix())
        if match is None:
            place = path.absolute().relative_to(above).with_suffix("").as_posix()
            yield BadFile(path, f"not named like {example}", foreign=ours.fullmatch(place) is None)
            continue
        first = seen.setdefault(match.groups(), path)
        if first is path:
            yield path, match.groups()
        elif _is_unreadable(path) == _is_unreadable(first) and not filecmp.cmp(first, path, shallow=False):
            yield BadFile(path, f"named as the same recording as {first}, but differs from it; keep one copy")


def _is_unreadable(path: Path) -> bool:
    return path.suffix.lower() in UNREADABLE
