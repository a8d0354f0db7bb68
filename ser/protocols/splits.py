"""Protocols: who is trained on, who selects the checkpoint, who is tested."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ser.errors import UserError
from ser.settings.names import OptionalName, as_name, meant

Gender = Literal["female", "male"]
Partition = Literal["train", "val", "test"]
PARTITIONS: tuple[Partition, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording of one emotion by one speaker; names are text."""

    path: Path
    emotion: str
    speaker: str
    gender: Gender | None = None
    session: str | None = None
    sentence: str | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        for fact in ("emotion", "speaker", "session", "sentence"):
            if not isinstance(value := getattr(self, fact), str | None):
                object.__setattr__(self, fact, as_name(value))


@dataclass(frozen=True)
class Split:
    """Positions in the list of utterances, by partition."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]

    def __getitem__(self, name: Partition) -> tuple[int, ...]:
        """Return the positions of one partition."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


class Protocol(ABC):
    """Base class: divides utterances into folds.

    Every constructor argument is kept as an attribute of the same name. The attributes below are promises that the
    leakage audit checks for every split.

    Attributes:
        speaker_disjoint: No speaker is in two partitions.
        session_disjoint: No session is in two partitions.
        sentence_disjoint: No sentence of the test is in train or val.
        test_is_validation: The paper had no separate test set: the checkpoint was selected on the scored utterances.
            Only then may test and val share utterances (they are the same), and every output says so.
        advice: What to do if a partition of a fold is empty.
    """

    speaker_disjoint: bool = True
    session_disjoint: bool = False
    sentence_disjoint: bool = False
    test_is_validation: bool = False
    advice: str = "Use a corpus with more speakers, or another protocol."

    @abstractmethod
    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return a name for each fold: what it tests (a speaker, a session)."""

    @abstractmethod
    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split of one fold, a number below ``len(folds(utterances))``."""

    def split(self, utterances: Sequence[Utterance], fold: int, needed: Sequence[Partition] = PARTITIONS) -> Split:
        """Return the split of one fold.

        Args:
            utterances: Of the corpus.
            fold: Number of the fold.
            needed: Partitions that must not be empty: a test, say, needs no training utterances.

        Raises:
            UserError: There is no such fold, or a needed partition is empty.
        """
        names = self.folds(utterances)
        speakers = len(speakers_of(utterances))
        found = f"for {len(utterances)} utterances of {speakers} speaker{'s' if speakers != 1 else ''}"
        if not names:
            raise UserError(f"{type(self).__name__} has no folds {found}. {self.advice}")
        if not 0 <= fold < len(names):
            raise UserError(
                f"Fold {fold} does not exist: {type(self).__name__} has {len(names)} folds here, "
                f"0 to {len(names) - 1} (testing {', '.join(names)})."
            )
        split = self.divide(utterances, fold)
        empty = [name for name in needed if not split[name]]
        if empty:
            raise UserError(
                f"Fold {fold} of {type(self).__name__} has an empty {' and '.join(empty)} {found}. {self.advice}"
            )
        return split

    def _known(self, utterances: Sequence[Utterance], fact: Literal["session", "sentence", "split"]) -> list[str]:
        """Return a fact of every utterance.

        Raises:
            UserError: Some utterances lack it.
        """
        known = [value for utterance in utterances if (value := getattr(utterance, fact)) is not None]
        if len(known) < len(utterances):
            first = next(utterance.path for utterance in utterances if getattr(utterance, fact) is None)
            raise UserError(
                f"{type(self).__name__} needs the {fact} of every utterance; {len(utterances) - len(known)} of "
                f"{len(utterances)} have none (the first is {first.name}). Use another protocol or corpus; in a table "
                f"of your own, fill the column {fact}."
            )
        return known


class LeaveOneSpeakerOut(Protocol):
    """Test one speaker, select the checkpoint on another, train on the rest.

    The validation speaker is the test speaker's partner where recordings were made in sessions of two (IEMOCAP), so
    that train shares no session with val and test; otherwise the next speaker in alphabetical order, cyclically.

    Args:
        validation_speaker: Always this one instead; no fold tests this speaker.
    """

    def __init__(self, validation_speaker: OptionalName = None) -> None:
        self.validation_speaker = None if validation_speaker is None else as_name(validation_speaker)

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return the speakers that are tested, in alphabetical order."""
        speakers = speakers_of(utterances)
        if self.validation_speaker is not None and self.validation_speaker not in speakers:
            raise UserError(
                f"The validation speaker {self.validation_speaker!r} is not in the corpus, which has "
                f"{', '.join(speakers)}.{meant(self.validation_speaker, speakers)}"
            )
        return [speaker for speaker in speakers if speaker != self.validation_speaker]

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split that tests the fold's speaker."""
        test = self.folds(utterances)[fold]
        val = self.validation_speaker or self._partner(utterances, test)
        return divide_by([utterance.speaker for utterance in utterances], val={val}, test={test})

    def _partner(self, utterances: Sequence[Utterance], test: str) -> str:
        sessions = {utterance.session for utterance in utterances if utterance.speaker == test}
        together = {u.speaker for u in utterances if u.session is not None and u.session in sessions} - {test}
        if len(together) == 1:
            return together.pop()
        return following(speakers_of(utterances), test)


class LeaveOneSessionOut(Protocol):
    """Test all speakers of one session, select the checkpoint on the next session, train on the others.

    This is the 5-fold cross-validation of IEMOCAP. The 10-fold form, which tests one speaker of a session and selects
    the checkpoint on the other, is `LeaveOneSpeakerOut`.
    """

    session_disjoint = True

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return the sessions, in alphabetical order."""
        return sorted(set(self._known(utterances, "session")))

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split that tests the fold's session."""
        sessions = self.folds(utterances)
        test = sessions[fold]
        return divide_by(self._known(utterances, "session"), val={following(sessions, test)}, test={test})


class LeaveOneSentenceOut(Protocol):
    """Test an unseen sentence, in a corpus whose speakers all say the same sentences.

    The checkpoint is selected on the other sentences of one held-out speaker, another one in each fold.

    Args:
        new_speakers: Test an unseen sentence of an unseen speaker: a fold for every speaker and sentence. Other
            recordings of that speaker and of that sentence are not used.
    """

    sentence_disjoint = True

    def __init__(self, new_speakers: bool = False) -> None:
        self.new_speakers = new_speakers
        self.speaker_disjoint = new_speakers

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return the sentences, with the speakers if these are unseen as well, in alphabetical order."""
        return [f"{sentence} by {speaker}" if speaker else sentence for sentence, speaker in self._tested(utterances)]

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split that tests the fold's sentence."""
        sentence, speaker = self._tested(utterances)[fold]
        speakers = speakers_of(utterances)
        val = following(speakers, speaker) if speaker else speakers[fold % len(speakers)]
        other = [i for i, utterance in enumerate(utterances) if utterance.sentence != sentence]
        return Split(
            train=tuple(i for i in other if utterances[i].speaker not in (val, speaker)),
            val=tuple(i for i in other if utterances[i].speaker == val and val != speaker),
            test=tuple(i for i, u in enumerate(utterances) if self._tests(u) == (sentence, speaker)),
        )

    def _tested(self, utterances: Sequence[Utterance]) -> list[tuple[str, str]]:
        self._known(utterances, "sentence")
        return sorted({self._tests(utterance) for utterance in utterances})

    def _tests(self, utterance: Utterance) -> tuple[str, str]:
        return utterance.sentence or "", utterance.speaker if self.new_speakers else ""


def speakers_of(utterances: Sequence[Utterance]) -> list[str]:
    """Return the speakers, in alphabetical order."""
    return sorted({utterance.speaker for utterance in utterances})


def following(names: Sequence[str], name: str) -> str:
    """Return the next name, cyclically."""
    return names[(names.index(name) + 1) % len(names)]


def divide_by(groups: Sequence[str], val: set[str], test: set[str]) -> Split:
    """Divide positions by the group of each: those in ``test``, those in ``val``, and the rest to train."""
    return Split(
        train=tuple(i for i, group in enumerate(groups) if group not in val | test),
        val=tuple(i for i, group in enumerate(groups) if group in val - test),
        test=tuple(i for i, group in enumerate(groups) if group in test),
    )
