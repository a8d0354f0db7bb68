"""Cross-validation in k folds, for corpora with too many speakers, or too few, to leave out one at a time."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ser.errors import UserError
from ser.protocols.splits import Protocol, Split, Utterance, divide_by

_Item = TypeVar("_Item")


class _KFold(Protocol):
    """k folds, of which one is tested, the next one, cyclically, chooses the checkpoint, and the others are trained on.

    Args:
        k: Number of folds.
    """

    def __init__(self, k: int = 5) -> None:
        if k < 3:
            raise UserError(f"k is {k}; it must be at least 3: a fold to test, one to validate, and some to train on.")
        self.k = k

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return the parts by number, from 1."""
        return [f"part {number} of {self.k}" for number in range(1, self.k + 1)]

    def _sides(self, parts: Iterable[int], fold: int) -> Split:
        """Divide positions by the number of the part that each belongs to."""
        return divide_by([str(part) for part in parts], val={str((fold + 1) % self.k)}, test={str(fold)})


class SpeakerKFold(_KFold):
    """k groups of speakers, each with the same share of women and of men as far as that is possible.

    With its five folds it is the speaker-independent protocol for the 24 actors of RAVDESS. Nothing in it is random.

    Args:
        k: Number of groups.
    """

    def __init__(self, k: int = 5) -> None:
        super().__init__(k)

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return the speakers of each group."""
        part_of = self._groups(utterances)
        return [" ".join(sorted(s for s, part in part_of.items() if part == number)) for number in range(self.k)]

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split that tests the fold's group of speakers."""
        part_of = self._groups(utterances)
        return self._sides((part_of[utterance.speaker] for utterance in utterances), fold)

    def _groups(self, utterances: Sequence[Utterance]) -> dict[str, int]:
        """Deal the speakers, those who say most first, to the group with fewest of their gender, then least speech."""
        said = Counter(utterance.speaker for utterance in utterances)
        gender_of = dict.fromkeys(said, "")
        for utterance in utterances:  # a table may say it of some of a speaker's recordings only
            gender_of[utterance.speaker] = max(gender_of[utterance.speaker], utterance.gender or "")
        if len(said) < self.k:
            raise UserError(
                f"SpeakerKFold cannot make {self.k} groups of {len(said)} speakers; give a smaller --data.protocol.k "
                "or use LeaveOneSpeakerOut."
            )
        group_of: dict[str, int] = {}
        same, total = Counter[tuple[str, int]](), Counter[int]()
        for speaker in sorted(said, key=lambda speaker: (gender_of[speaker], -said[speaker], speaker)):
            gender = gender_of[speaker]
            group = min(range(self.k), key=lambda number: (same[gender, number], total[number], number))
            group_of[speaker] = group
            same[gender, group] += 1
            total[group] += said[speaker]
        return group_of


class StratifiedKFold(_KFold):
    """k parts with the same share of every emotion, dealt at random; every speaker is in every partition.

    Args:
        k: Number of parts.
        seed: Another seed, another deal.
    """

    speaker_disjoint = False

    def __init__(self, k: int = 5, seed: int = 0) -> None:
        super().__init__(k)
        self.seed = seed

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split that tests the fold's part."""
        part_of: dict[int, int] = {}
        for emotion, members in shuffled_by_emotion(utterances, self.seed).items():
            if len(members) < self.k:
                raise UserError(
                    f"StratifiedKFold cannot deal {len(members)} utterances of {emotion} to {self.k} parts; give a "
                    "smaller --data.protocol.k, or leave the emotion out with --data.emotions."
                )
            # Each emotion goes on where the last one stopped, so that the parts are of one size, too.
            start = len(part_of)
            part_of |= {i: (start + number) % self.k for number, i in enumerate(members)}
        return self._sides((part_of[i] for i in range(len(utterances))), fold)


def by_emotion(utterances: Sequence[Utterance]) -> Mapping[str, list[int]]:
    """Return the positions of each emotion's utterances, emotions and files in alphabetical order."""
    positions: dict[str, list[int]] = defaultdict(list)
    for i in in_order(utterances):
        positions[utterances[i].emotion].append(i)
    return {emotion: positions[emotion] for emotion in sorted(positions)}


def shuffled_by_emotion(utterances: Sequence[Utterance], seed: int) -> Mapping[str, list[int]]:
    """Return the positions of each emotion's utterances, emotions in alphabetical order and files at random."""
    return {emotion: shuffled(members, f"{seed} {emotion}") for emotion, members in by_emotion(utterances).items()}


def shuffled(items: Sequence[_Item], seed: int | str) -> list[_Item]:
    """Return the items at random; what a seed gives is the same on every machine and in every version of Python.

    Only the numbers of ``random()`` are promised to be that, so the items are sorted by them.
    """
    numbers = random.Random(str(seed))
    return sorted(items, key=lambda _: numbers.random())


def in_order(utterances: Sequence[Utterance]) -> list[int]:
    """Return positions in the alphabetical order of the files, whatever order a corpus lists them in."""
    return sorted(range(len(utterances)), key=lambda i: utterances[i].path.parts)
