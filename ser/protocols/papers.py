"""The papers' own splits, with their sizes to the file.

They share speakers between partitions, which every output says: a network is tested on voices that it has seen. They
serve to compare with published results; report a speaker-independent protocol beside them.
"""

from abc import abstractmethod
from collections.abc import Sequence

from ser.errors import UserError
from ser.protocols.kfold import by_emotion, in_order, shuffled, shuffled_by_emotion
from ser.protocols.splits import Protocol, Split, Utterance


class _PaperSplit(Protocol):
    """Base class: one split, speakers shared."""

    speaker_disjoint = False

    def folds(self, utterances: Sequence[Utterance]) -> list[str]:
        """Return one fold."""
        return ["20 % of the files"]

    @abstractmethod
    def order(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Return the positions in groups that are split separately, in the order of the paper."""

    @abstractmethod
    def sizes(self, files: int) -> tuple[int, int]:
        """Return the number of training and validation files in a group; the rest is tested."""

    def divide(self, utterances: Sequence[Utterance], fold: int) -> Split:
        """Return the split."""
        train: list[int] = []
        val: list[int] = []
        test: list[int] = []
        for group in self.order(utterances):
            trained, validated = self.sizes(len(group))
            train += group[:trained]
            val += group[trained : trained + validated]
            test += group[trained + validated :]
        if self.test_is_validation:
            test = val = val + test
        return Split(*(tuple(sorted(part)) for part in (train, val, test)))


class Stratified641620(_PaperSplit):
    """64 % train, 16 % validation, 20 % test of every emotion, at random.

    Of n files of an emotion, floor(0.8 n) are kept, and of these m, floor(0.8 m) are trained on: 336, 88 and 111 files
    of EMO-DB. Used by the 2-D CNN-LSTM of the EMO-DB report (001).

    Args:
        seed: Of the random order.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def order(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Return the files of each emotion, shuffled."""
        return list(shuffled_by_emotion(utterances, self.seed).values())

    def sizes(self, files: int) -> tuple[int, int]:
        """Round down, twice."""
        kept = files * 4 // 5
        train = kept * 4 // 5
        return train, kept - train


class Tail20(_PaperSplit):
    """The first 80 % of the files, in alphabetical order, are trained on; the last 20 % are both validation and test.

    That is Keras's ``validation_split=0.2`` on unshuffled files: 428 and 107 files of EMO-DB, where the tail is the
    last two speakers. Used by the time-distributed networks of the EMO-DB report (001), which had no test set.
    """

    test_is_validation = True

    def order(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Return all files in alphabetical order."""
        return [in_order(utterances)]

    def sizes(self, files: int) -> tuple[int, int]:
        """Round training down."""
        train = files * 4 // 5
        return train, files - train


class ClassOrder641620(_PaperSplit):
    """Of every emotion's files in alphabetical order, the last 20 % are tested, the 16 % before them validated on.

    Of n files of an emotion, t = round(0.8 n) are kept and n - t tested; of those kept, the last round(0.2 t) are
    validated on: 344, 85 and 106 files of EMO-DB. Used by the 1-D networks of the EMO-DB report (001).
    """

    def order(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Return the files of each emotion in alphabetical order."""
        return list(by_emotion(utterances).values())

    def sizes(self, files: int) -> tuple[int, int]:
        """Round half to even, as NumPy does."""
        kept = round(files * 4 / 5)
        val = round(kept / 5)
        return kept - val, val


class Random8020(_PaperSplit):
    """80 % train and 20 % test, at random and not stratified; validation is a share of the training files.

    1152 and 288 files of RAVDESS, 428 and 107 of EMO-DB, before validation is taken. Used by the papers 003 and 004;
    neither says how the checkpoint was selected.

    Args:
        seed: Of the random order.
        validation: Share of the training files to select the checkpoint on. With 0 it is selected on the test set, as
            the papers may have done: the score is then optimistic, and every output says so.
    """

    def __init__(self, seed: int = 0, validation: float = 0.1) -> None:
        if not 0 <= validation < 1:
            raise UserError(f"validation is {validation}; it must be a share of the training files, from 0 to below 1.")
        self.seed = seed
        self.validation = validation
        self.test_is_validation = validation == 0

    def order(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Return all files, shuffled."""
        return [shuffled(in_order(utterances), self.seed)]

    def sizes(self, files: int) -> tuple[int, int]:
        """Round training down, and its validation share to the nearest."""
        train = files * 4 // 5
        val = round(self.validation * train)
        return train - val, val
