"""Cross-validation in k folds, for corpora with too many or too few speakers to leave out one at a time."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from ser.errors import UserError
from ser.protocols.splits import Protocol, Split, Utterance, divide_by

_Item = TypeVar("_Item")


class _KFold(Protocol):
    """k parts: one is tested, the next one (cyclically) selects the checkpoint, the others are trained on.

    Args:
        k: Number of folds.
    """

    def __init__(self, k: int = 5) -> None:
        if k < 3:
            raise UserError(f"k is {k}; it must be at least 3: a part each to test, to validate and to train on.")
        self.k = k

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return the parts by number, from 1."""
        return [f"part {number} of {self.k}" for number in range(1, self.k + 1)]

    def _split(self, parts: Iterable[int], fold: int) -> Split:
        """Divide positions by the number of the part that each belongs to."""
        return divide_by([str(part) for part in parts], val={str((fold + 1) % self.k)}, test={str(fold)})


class SpeakerKFold(_KFold):
    """k groups of speakers, as equal as possible in numbers of women, men and utterances.

    With five folds it is the speaker-independent protocol for the 24 actors of RAVDESS. It is not random.

    Args:
        k: Number of groups.
    """

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return the speakers of each group."""
        part_of = self._groups(utterances)
        return [" ".join(sorted(s for s, part in part_of.items() if part == number)) for number in range(self.k)]

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split that tests the fold's group of speakers."""
        part_of = self._groups(utterances)
        return self._split((part_of[utterance.speaker] for utterance in utterances), fold)

    def _groups(self, utterances: Sequence[Utterance]) -> dict[str, int]:
        """Assign speakers, most utterances first, to the group with fewest of their gender, then fewest utterances."""
        spoken = Counter(utterance.speaker for utterance in utterances)
        gender_of = dict.fromkeys(spoken, "")
        for utterance in utterances:  # a table may state it for some recordings only
            gender_of[utterance.speaker] = max(gender_of[utterance.speaker], utterance.gender or "")
        if len(spoken) < self.k:
            raise UserError(
                f"SpeakerKFold cannot form {self.k} groups from {len(spoken)} speakers; give a smaller "
                "--data.protocol.k or use LeaveOneSpeakerOut."
            )
        group_of: dict[str, int] = {}
        same, total = Counter[tuple[str, int]](), Counter[int]()
        for speaker in sorted(spoken, key=lambda speaker: (gender_of[speaker], -spoken[speaker], speaker)):
            gender = gender_of[speaker]
            group = min(range(self.k), key=lambda number: (same[gender, number], total[number], number))
            group_of[speaker] = group
            same[gender, group] += 1
            total[group] += spoken[speaker]
        return group_of


class StratifiedKFold(_KFold):
    """k random parts with the same share of every emotion; speakers are shared between partitions.

    Args:
        k: Number of parts.
        seed: Of the random order.
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
                    f"StratifiedKFold cannot divide {len(members)} utterances of {emotion} into {self.k} parts; give a "
                    "smaller --data.protocol.k, or leave the emotion out with --data.emotions."
                )
            # Each emotion continues where the last one stopped, so that the parts have equal sizes.
            start = len(part_of)
            part_of |= {i: (start + number) % self.k for number, i in enumerate(members)}
        return self._split((part_of[i] for i in range(len(utterances))), fold)


def by_emotion(utterances: Sequence[Utterance]) -> Mapping[str, list[int]]:
    """Return the positions of each emotion's utterances, emotions and files in alphabetical order."""
    positions: dict[str, list[int]] = defaultdict(list)
    for i in in_order(utterances):
        positions[utterances[i].emotion].append(i)
    return {emotion: positions[emotion] for emotion in sorted(positions)}


def shuffled_by_emotion(utterances: Sequence[Utterance], seed: int) -> Mapping[str, list[int]]:
    """Return the positions of each emotion's utterances, emotions in alphabetical order, files shuffled."""
    return {emotion: shuffled(members, f"{seed} {emotion}") for emotion, members in by_emotion(utterances).items()}


def shuffled(items: Sequence[_Item], seed: int | str) -> list[_Item]:
    """Shuffle items; the order depends on the seed alone, on every machine and in every version of Python.

    Only the numbers of ``random()`` are guaranteed to be reproducible, so the items are sorted by them.
    """
    numbers = random.Random(str(seed))
    return sorted(items, key=lambda _: numbers.random())


def in_order(utterances: Sequence[Utterance]) -> list[int]:
    """Return positions in the alphabetical order of the files, whatever order a corpus lists them in."""
    return sorted(range(len(utterances)), key=lambda i: utterances[i].path.parts)
