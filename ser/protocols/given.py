"""Given splits: lists of speakers, or a column of the corpus."""

from collections.abc import Sequence

from ser.errors import UserError
from ser.protocols.splits import PARTITIONS, Partition, Protocol, Split, Utterance, speakers_of
from ser.settings.names import Name, as_names, meant


class FixedSpeakers(Protocol):
    """One split: the speakers that you list.

    Args:
        val: Speakers to select the checkpoint on.
        test: Speakers to test.
        train: Speakers to train on; null takes all the others. A speaker on no list is not used.

    Raises:
        UserError: Both val and test are empty; to train, neither may be.
    """

    advice = "Name speakers, as in --data.protocol.val '[anna]' --data.protocol.test '[ben, carla]'."

    def __init__(
        self, val: list[Name] | None = None, test: list[Name] | None = None, train: list[Name] | None = None
    ) -> None:
        if not val and not test:
            raise UserError(f"FixedSpeakers needs validation and test speakers. {self.advice}")
        self.val = as_names(val)
        self.test = as_names(test)
        self.train = as_names(train)

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return the speakers that are tested: one fold."""
        speakers = self._partitions(utterances)
        return [" ".join(speakers["test"]) or f"no speaker, validating {' '.join(speakers['val'])}"]

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split."""
        speakers = self._partitions(utterances)
        return Split(
            *(tuple(i for i, u in enumerate(utterances) if u.speaker in speakers[name]) for name in PARTITIONS)
        )

    def _partitions(self, utterances: Sequence[Utterance]) -> dict[Partition, list[str]]:
        speakers = speakers_of(utterances)
        train, val, test = self.train or [], self.val or [], self.test or []
        named = [*train, *val, *test]
        unknown = [speaker for speaker in named if speaker not in speakers]
        if unknown:
            raise UserError(
                f"FixedSpeakers names {', '.join(unknown)}, not found in the corpus, which has {', '.join(speakers)}."
                f"{meant(unknown[0], speakers)}"
            )
        twice = sorted({speaker for speaker in named if named.count(speaker) > 1})
        if twice:
            raise UserError(f"FixedSpeakers names {', '.join(twice)} more than once; a speaker is in one partition.")
        if self.train is None:
            train = [speaker for speaker in speakers if speaker not in named]
        return {"train": train, "val": val, "test": test}


class ColumnSplit(Protocol):
    """One split: the corpus's own, from the column ``split`` of its table; utterances without an entry are not used.

    Args:
        speaker_disjoint: Stop if a speaker is in two partitions. Give false for a corpus whose own split shares
            speakers; every output says so.
    """

    advice = "Mark some in the column split: the checkpoint is selected on val, and test is used once."

    def __init__(self, speaker_disjoint: bool = True) -> None:
        self.speaker_disjoint = speaker_disjoint

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return one fold."""
        present = {utterance.split for utterance in utterances}
        if not present & set(PARTITIONS):
            raise UserError(
                "ColumnSplit needs a corpus with its own split: no utterance is marked train, val or test. Add a "
                "column split to your table (--data Table), or use another protocol."
            )
        return ["the corpus's own test"]

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split."""
        return Split(*(tuple(i for i, u in enumerate(utterances) if u.split == name) for name in PARTITIONS))
