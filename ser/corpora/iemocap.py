"""IEMOCAP, the interactive emotional dyadic motion capture database."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from ser.corpora.base import BadFile, SpeechCorpus
from ser.corpora.names import named_files
from ser.errors import UserError, check_choice
from ser.protocols.splits import Gender, Utterance
from ser.settings.names import Name

EMOTIONS = {
    "ang": "anger",
    "hap": "happiness",
    "neu": "neutral",
    "sad": "sadness",
    "exc": "excited",
    "fru": "frustration",
    "sur": "surprise",
    "fea": "fear",
    "dis": "disgust",
    "oth": "other",
}
NO_AGREEMENT = "xxx"
FOUR = ["anger", "happiness", "neutral", "sadness"]
GENDER: dict[str, Gender] = {"F": "female", "M": "male"}
# The letter after the session number is the actor with motion capture; the speaker is the one before the turn number.
NAME = re.compile(r"(Ses0[1-5])T?[FM]_(?:impro\d\d[ab]?|(script\d\d_\d)[ab]?)_([FM])\d{3}")
LABEL = re.compile(r"\[\d+\.\d+ - \d+\.\d+\]\t(?P<turn>\S+)\t(?P<emotion>\S+)\t\[.*\]\s*")

Subset = Literal["improvised", "scripted", "all"]
# Turns per emotion on which raters agreed; a missing number was not published.
PUBLISHED: dict[Subset, dict[str, int]] = {
    "improvised": {"anger": 289, "happiness": 284, "neutral": 1099, "sadness": 608, "excited": 663},
    "scripted": {"anger": 814, "happiness": 311, "neutral": 609, "sadness": 476, "excited": 378},
    "all": {
        "anger": 1103,
        "happiness": 595,
        "neutral": 1708,
        "sadness": 1084,
        "excited": 1041,
        "frustration": 1849,
        "surprise": 107,
        "fear": 40,
        "disgust": 2,
        "other": 3,
    },
}


class IEMOCAP(SpeechCorpus):
    """IEMOCAP: five sessions of two English actors each; turns with an emotion that most raters agreed on.

    Args:
        root: Folder that holds Session1 to Session5.
        subset: Which dialogues: improvised, scripted, or both. Scripted dialogues have the same text in all sessions.
        emotions: Emotions to use; null takes all ten. Excited is an emotion of its own, not happiness.
        kwargs: Every option of `SpeechCorpus`.
    """

    name = "IEMOCAP"
    licence = "by release form of the University of Southern California; research only"
    citation = (
        "C. Busso, M. Bulut, C.-C. Lee, A. Kazemzadeh, E. Mower, S. Kim, J. N. Chang, S. Lee, S. S. Narayanan: "
        "IEMOCAP: Interactive emotional dyadic motion capture database. "
        "Language Resources and Evaluation 42, 335-359, 2008."
    )
    homepage = "https://sail.usc.edu/iemocap"
    layout = "Session1 to Session5, each with sentences/wav/DIALOGUE/TURN.wav and dialog/EmoEvaluation/DIALOGUE.txt"
    published: ClassVar[Mapping[str, int]] = PUBLISHED["improvised"]
    speakers: ClassVar[Mapping[str, Gender]] = {
        f"Ses0{n}{letter}": GENDER[letter] for n in range(1, 6) for letter in GENDER
    }

    def __init__(
        self,
        root: str | Path | None = None,
        subset: Subset = "improvised",
        emotions: list[Name] | None = FOUR,
        **kwargs: Any,
    ) -> None:
        check_choice("subset", subset, PUBLISHED)
        super().__init__(root=root, emotions=emotions, **kwargs)
        self.subset = subset
        self.published = PUBLISHED[subset]  # type: ignore[misc]  # the facts of the class are those of the default

    def utterances(self, root: Path) -> Iterator[Utterance | BadFile]:
        """Read the evaluation files and find the recording of every labelled turn.

        The sentence is the dialogue for scripted ones, which have the same text in all sessions, else unknown.
        """
        for session in _sessions(root):
            labels = _labels(session / "dialog" / "EmoEvaluation")
            recordings: dict[str, Path] = {}
            for found in named_files(session / "sentences" / "wav", "([^/]+)", "", "Ses01F_impro01_F000.wav"):
                if isinstance(found, BadFile):  # a second recording of one name
                    yield found
                else:
                    recordings[found[0].stem] = found[0]
            for turn in sorted({*labels, *recordings}):
                item = self._turn(session, turn, recordings.get(turn), labels.get(turn))
                if item is not None:
                    yield item

    def _turn(self, session: Path, turn: str, path: Path | None, emotion: str | None) -> Utterance | BadFile | None:
        """Return one turn, or None if it does not belong to the subset."""
        match = NAME.fullmatch(turn)
        if match is None:
            foreign = not turn.startswith("Ses0")
            return BadFile(path or session / turn, "not named like Ses01F_impro01_F000.wav", foreign)
        pair, script, letter = match.groups()
        if self.subset != "all" and (script is not None) != (self.subset == "scripted"):
            return None
        if emotion is None:
            return BadFile(path or session / turn, f"has no label in {session.name}/dialog/EmoEvaluation")
        if emotion == NO_AGREEMENT:
            return None
        if path is None:
            return BadFile(session / "sentences" / "wav" / f"{turn}.wav", "has a label, but the recording is missing")
        if emotion not in EMOTIONS:
            return BadFile(path, f"has the unknown label {emotion!r}, not one of {', '.join(EMOTIONS)}, {NO_AGREEMENT}")
        return Utterance(path, EMOTIONS[emotion], pair + letter, GENDER[letter], session=pair, sentence=script)


def _sessions(root: Path) -> list[Path]:
    """Find the session folders, at most two levels down: the release has too many files to search all."""
    for depth in ("", "*/", "*/*/"):
        found = sorted(path for path in root.glob(f"{depth}Session[1-5]") if path.is_dir())
        if found:
            return found
    return []


def _labels(folder: Path) -> dict[str, str]:
    """Read the agreed emotion of every turn of a session.

    Subfolders hold the labels of single raters, in a similar form, and are not read.
    """
    files = [path for path in sorted(folder.glob("*.txt")) if not path.name.startswith(".")]
    if not files:
        raise UserError(
            f"{folder} holds no label files. IEMOCAP needs dialog/EmoEvaluation/DIALOGUE.txt in every session folder; "
            "unpack that part of the release as well, or move the session away."
        )
    # Raters' comments are not always UTF-8; the label lines are ASCII.
    lines = [line for path in files for line in path.read_text(encoding="utf-8", errors="replace").split("\n")]
    matches = [match for line in lines if (match := LABEL.fullmatch(line))]
    return {match["turn"]: match["emotion"] for match in matches}
