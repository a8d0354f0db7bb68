"""What the papers report of their systems, and how far that can be compared with a run of ``ser``.

Numbers are percent, as printed. Counts such as 71 of 88 are derived from printed percentages.
"""

from dataclasses import dataclass, replace

import numpy as np

from ser.runs.scores import FloatArray, IntArray


@dataclass(frozen=True)
class Result:
    """One reported result.

    Attributes:
        corpus: Its name, as in ``protocol.json``.
        protocol: The split, in words.
        setting: What distinguishes it, such as augmentation; may be empty.
        uar: Unweighted average recall, percent; None if not reported.
        deviation: Standard deviation of the UAR over folds and seeds, points.
        wa: Accuracy, percent.
        utterances: How many (or, where the protocol says so, segments) were scored.
        labels: K emotions, in the order of the matrix.
        confusion: (K, K) rows by true emotion, percent.
        recalls: (K,) percent, if reported without the matrix.
        supports: (K,) true utterances per emotion.
        caveats: Why this number may not be comparable with ours.
    """

    corpus: str
    protocol: str
    setting: str = ""
    uar: float | None = None
    deviation: float | None = None
    wa: float | None = None
    utterances: int | None = None
    labels: tuple[str, ...] = ()
    confusion: FloatArray | None = None
    recalls: tuple[float, ...] = ()
    supports: tuple[int, ...] = ()
    caveats: tuple[str, ...] = ()

    @property
    def counts(self) -> IntArray | None:
        """The confusion matrix in utterances, (K, K); None where the matrix or the supports are not reported."""
        if self.confusion is None or not self.supports:
            return None
        counts: IntArray = np.rint(self.confusion / 100 * np.array(self.supports)[:, None]).astype(np.int64)
        return counts


@dataclass(frozen=True)
class Published:
    """What a paper reports of a system.

    Attributes:
        system: Name of the system's config.
        paper: Where it was published.
        results: What is reported.
    """

    system: str
    paper: str
    results: tuple[Result, ...]

    def on(self, corpus: str) -> list[Result]:
        """Return the results on a corpus, named as in ``protocol.json``."""
        return [result for result in self.results if result.corpus == corpus]


def published(system: str) -> Published | None:
    """Return what is published of a system, named as its config, with or without ``_paper``; None for nothing."""
    return _PUBLISHED.get(system.removesuffix("_paper"))


def _matrix(text: str) -> FloatArray:
    matrix = np.array([[float(cell) for cell in row.split()] for row in text.strip().splitlines()])
    matrix.flags.writeable = False
    return matrix


_CORNN = (
    "Huang, Sun, Yang and Hou, Speech Emotion Recognition Based on Recurrent Neural Networks with Conformer for "
    "Emotional Speech Synthesis"
)
_REPORT = "Dey, Chowdhury and Mondal, Speech Emotion Recognition Using Deep Learning Methods (report)"
_DYCNN = "Finch, Speech Emotion Recognition with Dynamic CNN and Bi-LSTM"
_RESCNN = "Jin, Sherstneva and Botygin, Speech Emotion Recognition Based on Deep Residual Convolutional Neural Network"
_MLFLB = "Yadav, Bastola and Sharma, Speech Emotion Recognition using Convolutional Recurrent Neural Network"

# -- CoRNN and its comparisons --
_TEN_FOLDS = "10 folds (the source: one per speaker) of the 2280 improvised utterances in four emotions"
_HEADLINE = (
    "the paper does not state whether the UAR is a mean over folds or pooled; the two differ by 2 to 3 points on this "
    "corpus"
)
_ONE_RUN = "a single run: no repetition, no deviation"

_cornn = Result(
    "IEMOCAP",
    _TEN_FOLDS,
    uar=65.53,
    labels=("anger", "sadness", "happiness", "neutral"),
    confusion=_matrix("""
        78.69  1.37 10.31  9.62
         4.61 82.07  4.44  8.88
        21.83  8.45 49.65 20.07
        17.47 17.93 22.20 42.40
    """),
    caveats=(
        "the diagonal of the published matrix averages 63.20, not 65.53: probably the matrix is pooled and the "
        "headline a mean over folds",
        "the rows fit 291 utterances of anger where the corpus has 289",
        _HEADLINE,
        _ONE_RUN,
        "the network after 250 epochs was tested; the paper does not state how 250 was chosen",
    ),
)
_raw_crnn = Result(
    "IEMOCAP", "its own subset and folds", uar=60.23, deviation=3.2, caveats=("not run again in the CoRNN paper",)
)
_cornn_ablation = replace(_cornn, labels=(), confusion=None, caveats=(_HEADLINE, _ONE_RUN))
_acrnn = Result(
    "IEMOCAP",
    _TEN_FOLDS,
    uar=64.74,
    deviation=5.44,
    labels=("anger", "sadness", "happiness", "neutral"),
    recalls=(70.47, 84.32, 29.95, 66.52),
    caveats=(
        "the recalls are those that the CoRNN paper shows; they average 62.82, not 64.74",
        "the released code differs from the paper in pooling, attention, learning rate and batch size",
    ),
)

# -- the EMO-DB report --
_BEST_EPOCH = "the accuracy of the best epoch on the utterances that selected it: optimistic"
_SHARED = "train and test share speakers"
_TAIL = "the last 20% of the files by name for validation, no test: nearly only speakers 15 and 16, unseen"
_SEGMENTS = (
    "segments of one second are scored, not utterances",
    "files by emotion and name, the last ones for validation and test: nearly only unseen speakers",
)
_UNPUBLISHED = "the authors' notebook holds a test on unseen segments: 54.72% (307 of 561)"

_cnn2d_lstm = Result(
    "EMO-DB",
    "a random 16% of every emotion for validation (71 of 88), speakers shared",
    wa=80.68,
    utterances=88,
    caveats=(
        _BEST_EPOCH,
        _SHARED,
        "the public code reduces the input to two values per pixel, by normalising over an axis of length one",
        "the method's own source (Zhao et al. 2019) reports 95.33% with speakers shared and 95.89% without",
    ),
)
_tail = Result("EMO-DB", _TAIL, utterances=107, caveats=(_BEST_EPOCH, "of 3.5 s, the first 1.44 s are used"))
_segments = Result(
    "EMO-DB", "segments of one second of 16% of the files", utterances=416, caveats=(_BEST_EPOCH, *_SEGMENTS)
)
_cnn1d_bilstm = replace(_segments, wa=66.15, caveats=(*_segments.caveats, _UNPUBLISHED))

# -- DyCNN-BiLSTM and the residual CNN --
_UNSTATED = "split, number of runs and deviation are not stated, nor is what it is compared with"
_RANDOM = "split and number of runs are not stated; probably random, speakers shared"
_TOO_GOOD = (
    "far above what such networks reach on unseen speakers (50 to 70% on RAVDESS): the figure is captioned as "
    "training accuracy, and the numbers fit no plain hold-out of the corpus; SAVEE's would fit augmentation before "
    "the split"
)
_dycnn_bilstm = tuple(
    Result(corpus, "unstated", wa=wa, caveats=(_UNSTATED,))
    for corpus, wa in (("CASIA", 59.08), ("EMO-DB", 89.29), ("IEMOCAP", 71.25))
)
_rescnn1d = tuple(
    Result(corpus, "unstated", wa=wa, caveats=(_RANDOM, _TOO_GOOD))
    for corpus, wa in (("RAVDESS", 97.30), ("SAVEE", 98.26))
)

# -- CRNN mLFLB --
_RANDOM_20 = "a single random 20% of the files, not by emotion, speakers and sentences shared"
_ravdess = Result(
    "RAVDESS",
    _RANDOM_20,
    utterances=288,
    labels=("anger", "calm", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"),
    supports=(37, 36, 41, 41, 40, 24, 34, 35),
    caveats=(_SHARED, _ONE_RUN, "the paper stops early but names no validation files: perhaps on the tested ones"),
)
_emodb = replace(
    _ravdess,
    corpus="EMO-DB",
    utterances=107,
    labels=("anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness"),
    supports=(34, 10, 10, 12, 13, 17, 11),
)
_crnn_mlflb = (
    replace(
        _ravdess,
        setting="without augmentation",
        wa=79.86,
        uar=79.62,
        confusion=_matrix("""
            94.59  0     2.70  0     0     0     2.70  0
             0    91.67  0     0     0     2.78  5.56  0
             4.88  0    75.61  7.32  2.44  0     9.76  0
             2.44  2.44  4.88 80.49  2.44  0     7.32  0
             5.00  2.50  0    15.00 67.50  0     7.50  2.50
             0    16.67  0     0     0    70.83 12.50  0
             0     5.88  5.88 14.71  2.94  0    70.59  0
             0     0     0     0     2.86  0    11.43 85.71
        """),
    ),
    replace(
        _emodb,
        setting="without augmentation",
        wa=83.18,
        uar=82.98,
        confusion=_matrix("""
            85.29  0     0     8.82  5.88  0     0
             0    80.00  0    10.00  0    10.00  0
             0     0    80.00  0    20.00  0     0
             0     0     0    91.67  8.33  0     0
            30.77  0     0     7.69 61.54  0     0
             0    11.76  0     5.88  0    82.35  0
             0     0     0     0     0     0   100
        """),
    ),
)
_augmented = (  # only the training files are
    replace(
        _ravdess,
        setting="with augmentation",
        wa=85.76,
        uar=85.43,
        confusion=_matrix("""
            97.30  0     0     0     0     0     2.70  0
             0    88.89  0     0     0     2.78  8.33  0
             2.44  0    95.12  0     0     0     2.44  0
             0     2.44  0    70.73  4.88  0    19.51  2.44
             5.00  0     0     0    82.50  0     7.50  5.00
             0    12.50  0     0     4.17 75.00  8.33  0
             0     2.94  5.88  0     2.94  2.94 85.29  0
             0     0     0     0    11.43  0     0    88.57
        """),
    ),
    replace(
        _emodb,
        setting="with augmentation",
        wa=91.59,
        uar=90.79,
        confusion=_matrix("""
            97.06  0     0     2.94  0     0     0
             0    90.00 10.00  0     0     0     0
             0     0   100     0     0     0     0
             0     0     0    83.33 16.67  0     0
            15.38  0     0     7.69 76.92  0     0
             0    11.76  0     0     0    88.24  0
             0     0     0     0     0     0   100
        """),
    ),
)

_PUBLISHED: dict[str, Published] = {
    entry.system: entry
    for entry in (
        Published("cornn", _CORNN, (_cornn,)),
        Published("cornn_no_conformer", _CORNN, (replace(_cornn_ablation, uar=63.68),)),
        Published("cornn_no_bilstm", _CORNN, (replace(_cornn_ablation, uar=59.76),)),
        Published(
            "acrnn",
            "Chen et al. 2018, as quoted in the CoRNN paper",
            (_acrnn, Result("EMO-DB", "10 folds, one per speaker", uar=82.82, deviation=4.99)),
        ),
        Published("raw_crnn", "Latif et al. 2019, as quoted in the CoRNN paper", (_raw_crnn,)),
        Published("cnn2d_lstm", _REPORT, (_cnn2d_lstm,)),
        Published("td_cnn2d_lstm", _REPORT, (replace(_tail, wa=62.0),)),
        Published("td_cnn2d_bilstm", _REPORT, (replace(_tail, wa=66.38),)),
        Published("cnn1d_lstm", _REPORT, (replace(_segments, wa=65.4),)),
        Published("cnn1d_bilstm", _REPORT, (_cnn1d_bilstm,)),
        Published("dycnn_bilstm", _DYCNN, _dycnn_bilstm),
        Published("rescnn1d", _RESCNN, _rescnn1d),
        Published("crnn_mlflb", _MLFLB, _crnn_mlflb),
        Published("crnn_mlflb_augmented", _MLFLB, _augmented),
    )
}
