"""Protocols: who is trained on, who chooses the checkpoint, who is tested."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ser.errors import UserError

Gender = Literal["female", "male"]
Side = Literal["train", "val", "test"]
SIDES: tuple[Side, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording of one emotion by one speaker."""

    path: Path
    emotion: str
    speaker: str
    gender: Gender | None = None
    session: str | None = None
    sentence: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Split:
    """Positions in the list of utterances, by side."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]

    def side(self, name: Side) -> tuple[int, ...]:
        """Return the positions of one side."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


class Protocol(ABC):
    """Base class: divides utterances into folds.

    Every constructor argument is kept as an attribute of the same name.

    Attributes:
        speaker_disjoint: Whether no speaker may be on two sides; the leakage audit holds every split to it.
    """

    speaker_disjoint: bool = True

    @abstractmethod
    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return what each fold tests, in a word (a speaker, a session)."""

    @abstractmethod
    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split of one fold, a number below ``len(folds(utterances))``."""

    def split(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split of one fold.

        Raises:
            UserError: There is no such fold, or a side of it holds nothing.
        """
        names = self.folds(utterances)
        if not 0 <= fold < len(names):
            raise UserError(
                f"Fold {fold} does not exist: {type(self).__name__} makes {len(names)} folds here, "
                f"0 to {len(names) - 1} (testing {', '.join(names)})."
            )
        split = self.divide(utterances, fold)
        empty = [name for name in SIDES if not split.side(name)]
        if empty:
            raise UserError(
                f"Fold {fold} of {type(self).__name__} leaves nothing for {' and '.join(empty)} out of "
                f"{len(utterances)} utterances of {len({u.speaker for u in utterances})} speakers. "
                "Use a corpus with more speakers, or another protocol."
            )
        return split


class LeaveOneSpeakerOut(Protocol):
    """Test one speaker, choose the checkpoint on another, train on the rest.

    The validation speaker is the test speaker's partner where recordings were made in sessions of two (IEMOCAP), so
    that no session is on two sides, and otherwise the next speaker in alphabetical order, cyclically.

    Args:
        validation_speaker: Always this one instead; no fold tests this speaker then.
    """

    def __init__(self, validation_speaker: str | None = None) -> None:
        self.validation_speaker = validation_speaker

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return the speakers that are tested, in alphabetical order."""
        speakers = self._speakers(utterances)
        if self.validation_speaker is not None and self.validation_speaker not in speakers:
            raise UserError(
                f"The validation speaker {self.validation_speaker!r} is not in the corpus, which has "
                f"{', '.join(speakers)}."
            )
        return [speaker for speaker in speakers if speaker != self.validation_speaker]

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split that tests the fold's speaker."""
        test = self.folds(utterances)[fold]
        val = self.validation_speaker or self._partner(utterances, test)
        return divide_by([utterance.speaker for utterance in utterances], val={val}, test={test})

    def _partner(self, utterances: Sequence[Utterance], test: str) -> str:
        speakers = self._speakers(utterances)
        sessions = {utterance.session for utterance in utterances if utterance.speaker == test}
        together = {u.speaker for u in utterances if u.session is not None and u.session in sessions} - {test}
        if len(together) == 1:
            return together.pop()
        return speakers[(speakers.index(test) + 1) % len(speakers)]

    @staticmethod
    def _speakers(utterances: Sequence[Utterance]) -> list[str]:
        return sorted({utterance.speaker for utterance in utterances})


def divide_by(groups: Sequence[str], val: set[str], test: set[str]) -> Split:
    """Divide positions by the group of each: those in ``test``, those in ``val``, and the rest to train."""
    return Split(
        train=tuple(i for i, group in enumerate(groups) if group not in val | test),
        val=tuple(i for i, group in enumerate(groups) if group in val - test),
        test=tuple(i for i, group in enumerate(groups) if group in test),
    )
