"""A survey of a corpus as a fit would see it, as plain data."""

import copy
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ser.corpora.base import SpeechCorpus
from ser.corpora.notes import notes_on_recordings
from ser.errors import UserError
from ser.features.audio import read_again
from ser.features.preprocess import Waveform
from ser.parallel import in_chunks
from ser.protocols.splits import PARTITIONS
from ser.settings.class_paths import describe
from ser.settings.names import some

FULL_SCALE = 0.999  # 16-bit samples reach 0.99997; some recorders stop slightly below
CLIPPED_RUN = 3  # consecutive samples at full scale; a single one may be a true peak
MOST_FOLDS = 200  # described folds


def survey(corpus: SpeechCorpus) -> dict[str, Any]:
    """Describe a corpus and every fold of its protocol.

    Damaged files never stop a survey; the verdict mentions them if ``on_bad_file`` would stop a fit.

    Of very many folds only the first are described, since each takes time in proportion to the utterances.

    Returns:
        JSON-ready: utterances by emotion and speaker, durations, rates, notes on truncated and short recordings,
        damaged, foreign and clipped files, exact duplicates, the folds with their audit, and the verdict: whether a
        fit would run.

    Raises:
        UserError: The corpus cannot be read at all, or the protocol does not fit it.
    """
    stops = corpus.on_bad_file == "stop"
    corpus = tolerant(corpus)
    names = corpus.protocol.folds(corpus.table)
    folds = [_fold(corpus, number, tests) for number, tests in enumerate(names[:MOST_FOLDS])]
    if not 0 <= corpus.fold < len(names):
        corpus.protocol.split(corpus.table, corpus.fold)  # raises the error
    return {
        "corpus": corpus.name,
        "root": str(corpus.locate()),
        "licence": corpus.licence,
        "synthetic": corpus.synthetic,
        "labels": corpus.labels,
        "utterances": len(corpus.table),
        "emotions": corpus.found_and_published(),
        "speakers": _speakers(corpus),
        **_recordings(corpus),
        "notes": notes_on_recordings(corpus.table, corpus.recordings, corpus.front_end, corpus.relative),
        "damaged": _left_out(corpus, foreign=False),
        "foreign": _left_out(corpus, foreign=True),
        "clipped": _clipped(corpus),
        "duplicates": _duplicates(corpus),
        "protocol": describe(corpus.protocol),
        "folds": folds,
        "folds_of_all": [len(folds), len(names)],
        "verdict": _verdict(corpus, folds, stops),
    }


def tolerant(corpus: SpeechCorpus) -> SpeechCorpus:
    """Return the same corpus, leaving damaged files out."""
    corpus = copy.copy(corpus)
    corpus.on_bad_file = "skip"
    return corpus


def clipped_samples(waveform: Waveform) -> int:
    """Count samples in runs of at least three at full scale of one sign, shape (N,)."""
    count = 0
    for clipped in (waveform >= FULL_SCALE, waveform <= -FULL_SCALE):
        edges = np.diff(np.concatenate([[0], clipped.astype(np.int8), [0]]))
        lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
        count += int(lengths[lengths >= CLIPPED_RUN].sum())
    return count


def _speakers(corpus: SpeechCorpus) -> dict[str, Any]:
    spoken: dict[str, Counter[str]] = defaultdict(Counter)
    for utterance in corpus.table:
        spoken[utterance.speaker][utterance.emotion] += 1
    gender_of = {utterance.speaker: utterance.gender for utterance in corpus.table}
    return {
        speaker: {
            "gender": gender_of[speaker],
            "utterances": spoken[speaker].total(),
            "emotions": {emotion: spoken[speaker][emotion] for emotion in corpus.labels},
        }
        for speaker in sorted(spoken)
    }


def _recordings(corpus: SpeechCorpus) -> dict[str, Any]:
    durations = np.array([recording.duration_s for recording in corpus.recordings])
    return {
        "durations_s": {
            "total": float(durations.sum()),
            "min": float(durations.min()),
            "median": float(np.median(durations)),
            "mean": float(durations.mean()),
            "max": float(durations.max()),
        },
        "cut": int((durations > corpus.front_end.preprocess.duration_s).sum()),
        "sample_rates_hz": _counted([recording.sample_rate_hz for recording in corpus.recordings]),
        "channels": _counted([recording.channels for recording in corpus.recordings]),
    }


def _left_out(corpus: SpeechCorpus, foreign: bool) -> list[dict[str, str]]:
    files = [file for file in corpus.left_out if file.foreign == foreign]
    return [{"file": corpus.relative(file.path), "reason": file.reason} for file in files]


def _clipped(corpus: SpeechCorpus) -> list[dict[str, Any]]:
    paths = [utterance.path for utterance in corpus.table]
    counts = chain.from_iterable(in_chunks(_clipped_in, paths, "looking for clipping"))
    return [
        {"file": corpus.relative(path), "samples": count} for path, count in zip(paths, counts, strict=True) if count
    ]


def _clipped_in(paths: Sequence[Path]) -> list[int]:
    return [clipped_samples(read_again(path)) for path in paths]


def _duplicates(corpus: SpeechCorpus) -> list[list[str]]:
    """Return the groups of files with identical samples."""
    files: dict[str, list[str]] = defaultdict(list)
    for utterance, recording in zip(corpus.table, corpus.recordings, strict=True):
        files[recording.digest].append(corpus.relative(utterance.path))
    return [group for group in files.values() if len(group) > 1]


def _fold(corpus: SpeechCorpus, number: int, tests: str) -> dict[str, Any]:
    fold = corpus.fold_number(number)
    try:
        fold.protocol.split(fold.table, number)
        described = fold.description()
    except UserError as error:
        return {"fold": number, "tests": tests, "problem": str(error)}
    partitions: dict[str, Any] = {
        name: {key: value for key, value in described[name].items() if key != "files"} for name in PARTITIONS
    }
    return {
        "fold": number,
        "tests": tests,
        **partitions,
        "fingerprint": fold.fingerprint,
        **{name: list(getattr(fold.audit, name)) for name in ("leaks", "faults", "notes", "warnings")},
    }


def _verdict(corpus: SpeechCorpus, folds: list[dict[str, Any]], stops: bool) -> str:
    against = []
    if stops and (damaged := len(_left_out(corpus, foreign=False))):
        against.append(f"{damaged} damaged files stop a fit; leave them out with --data.on_bad_file skip.")
    for problem, message in {
        "leaks": "the audit stops fold {}: the split leaks.",
        "faults": "the audit stops fold {}: its scores would be meaningless.",
        "problem": "fold {} cannot be used.",
    }.items():
        if numbers := [str(fold["fold"]) for fold in folds if fold.get(problem)]:
            against.append(message.format(some(numbers)))
    if against:
        return " ".join(against)
    everywhere = [warning for warning in folds[0]["warnings"] if all(warning in fold["warnings"] for fold in folds)]
    somewhere = [str(fold["fold"]) for fold in folds if set(fold["warnings"]) - set(everywhere)]
    warnings = [*everywhere, *([f"See the notes on fold {some(somewhere)}."] if somewhere else [])]
    return " ".join(["a fit would run, but note:" if warnings else "a fit would run.", *warnings])


def _counted(values: list[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}
