"""Corpora of your own in folders, labelled by the folder or unlabelled; tables are in `table.py`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from ser.corpora.base import BadFile, SpeechCorpus
from ser.errors import UserError
from ser.features.audio import READABLE, audio_files
from ser.protocols.history import Identity
from ser.protocols.splits import Utterance
from ser.settings.class_paths import digest


class OwnCorpus(SpeechCorpus):
    """Base class of unpublished corpora, whose names and speakers only their users know."""

    licence = "your own"
    citation = "your own"
    speakers: ClassVar = {}
    published: ClassVar = {}

    @property
    def identity(self) -> Identity:
        """Which corpus this is; under a stated name, equal names of speakers mean the same people elsewhere, too."""
        named = self.stated_name is not None
        origin = self.name if named or self.root is None else f"{self.name}#{digest(str(self.root.resolve()), 8)}"
        return Identity(self.name, origin, type(self).name, named)

    def _default_name(self) -> str:
        if self.root is None:
            return type(self).name
        place = self.root.resolve()
        return place.stem if place.is_file() else place.name


class EmotionFolders(OwnCorpus):
    """A corpus of your own: a folder per emotion, and the speaker in the name of each file.

    Args:
        root: Folder that holds a folder for every emotion, named after it.
        speaker_pattern: Regular expression for the speaker in a file's path below the emotion's folder: its first
            group, or the whole match. ``^[^_]+`` finds "anna" in ``anna_03.wav``, ``^[^/]+`` in ``anna/03.wav``.
        kwargs: Every option of `SpeechCorpus`.

    Raises:
        UserError: The pattern is missing, or is not a regular expression.
    """

    name = "EmotionFolders"
    homepage = "a folder of your own"
    layout = "a folder per emotion that holds its recordings"

    def __init__(self, root: str | Path | None = None, speaker_pattern: str | None = None, **kwargs: Any) -> None:
        super().__init__(root=root, **kwargs)
        self.speaker_pattern = speaker_pattern
        if speaker_pattern is None:
            raise UserError(
                "EmotionFolders needs the speakers, to keep those of the test out of training. Give a regular "
                "expression that finds the speaker in a file's name, such as --data.speaker_pattern '^[^_]+' for "
                "anna_03.wav, or list files and speakers in a CSV (--data Table)."
            )
        try:
            self._speaker = re.compile(speaker_pattern)
        except re.error as error:
            raise UserError(
                f"speaker_pattern {speaker_pattern!r} is not a regular expression ({error}); an example is '^[^_]+'."
            ) from error

    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        """Take the emotion from the folder directly below the root, and the speaker from the rest of the path."""
        for path in audio_files(root):
            emotion, *rest = path.relative_to(root).parts
            if not rest:
                yield BadFile(path, "not in the folder of an emotion", foreign=True)
                continue
            match = self._speaker.search("/".join(rest))
            speaker = match[min(1, self._speaker.groups)] if match is not None else None
            if not speaker:
                yield BadFile(path, f"speaker_pattern {self._speaker.pattern!r} finds no speaker in {'/'.join(rest)!r}")
                continue
            yield Utterance(path, emotion, speaker)


class AudioFolder(OwnCorpus):
    """Recordings without labels, for prediction: an audio file, or a folder of them."""

    name = "AudioFolder"
    labelled = False
    homepage = "an audio file or a folder of your own"
    layout = f"audio files ({', '.join(sorted(READABLE))}), in any folders"

    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        """List the files; emotion and speaker are empty."""
        for path in [root] if root.is_file() else audio_files(root):
            yield Utterance(path, emotion="", speaker="")
