"""Many runs as one result: scores over folds and seeds, pooled over utterances, with intervals for unseen speakers.

A mean over folds and a score of all folds' utterances together ("pooled") are different numbers: on IEMOCAP, where
emotions are unevenly spread over speakers, by 2 to 3 points of UAR. Papers report either, so both are given.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ser.errors import UserError
from ser.evaluation.statistics import Interval, mean_and_std, plain, recall_interval, score_interval, wilson
from ser.runs.folder import Evaluation, StoredRun
from ser.runs.scores import SCORES, Counts, IntArray, recalls
from ser.runs.settings import FOLD_AND_SEED, Changed, differences
from ser.settings.names import some

FEW = 10  # names of a kind in a note


@dataclass(frozen=True)
class Part:
    """The runs of one fold, or of one seed.

    Attributes:
        number: Of the fold, or the seed; None for an unknown seed.
        tests: What the fold tests, in a word; empty for a seed.
        utterances: Tested by a fold in each run, or by all runs of a seed.
        lacks: Emotions that its test lacks: its UAR and macro-F1 are over the others.
        epochs: Mean number of epochs of its runs; NaN where unknown.
        means: Mean of each score over its runs: a fold's over the seeds, a seed's over the folds.
        deviations: Standard deviation of each score over its runs; NaN for a single one.
        pooled: Each score of all its utterances together.
    """

    number: int | None
    tests: str
    utterances: int
    lacks: Sequence[str]
    epochs: float
    means: Mapping[str, float]
    deviations: Mapping[str, float]
    pooled: Mapping[str, float]

    def plain(self) -> dict[str, Any]:
        """Return what was measured as plain data for JSON."""
        return {name: plain(value) for name, value in vars(self).items() if name not in ("number", "tests")}


@dataclass(frozen=True)
class Score:
    """One score of all runs.

    Attributes:
        mean: Over the folds, of each fold's mean over the seeds.
        fold_deviation: Standard deviation over the folds; NaN for a single one.
        seed_deviation: Standard deviation of the seeds' means over the folds; NaN for a single seed.
        pooled: The score of all utterances together.
        interval: Of the pooled score, for unseen speakers.
    """

    mean: float
    fold_deviation: float
    seed_deviation: float
    pooled: float
    interval: Interval


@dataclass(frozen=True)
class Recall:
    """Recall of one emotion over all utterances, NaN if it does not occur, and its interval for unseen speakers."""

    value: float
    interval: Interval


@dataclass(frozen=True)
class Summary:
    """The result of a cross-validation, or of a single run.

    Attributes:
        system: Name of the system.
        corpus: Name of the corpus.
        protocol: Name of the protocol.
        synthetic: Whether the corpus is synthetic speech.
        runs: What is summarised, by fold and seed.
        folds: Scores of each fold.
        seeds: Scores of each seed.
        scores: UAR, WA and macro-F1 ("uar", "wa", "macro_f1").
        recalls: Recall of every emotion.
        pooled: Every tested utterance, once per run that tested it.
        own_speakers: Of a single fold, the intervals of UAR and WA for its own speakers.
        notes: What to know when reading the scores, such as shared speakers.
    """

    system: str
    corpus: str
    protocol: str
    synthetic: bool
    runs: Sequence[StoredRun]
    folds: Sequence[Part]
    seeds: Sequence[Part]
    scores: Mapping[str, Score]
    recalls: Mapping[str, Recall]
    pooled: Evaluation
    own_speakers: Mapping[str, Interval]
    notes: Sequence[str]

    def plain(self) -> dict[str, Any]:
        """Return all of it as plain data for JSON; NaN is None."""
        facts = ("system", "corpus", "protocol", "synthetic")
        return {
            **{name: getattr(self, name) for name in facts},
            "labels": list(self.pooled.labels),
            "scores": plain(self.scores),
            "recalls": plain(self.recalls),
            "confusion": self.pooled.confusion.tolist(),
            "own_speakers": plain(self.own_speakers),
            "folds": [{"fold": part.number, "tests": part.tests, **part.plain()} for part in self.folds],
            "seeds": [{"seed": part.number, **part.plain()} for part in self.seeds],
            "runs": [
                {"run": run.path.name, "fold": run.fold, "seed": run.seed, "fingerprint": run.fingerprint}
                | {name: run.test.scores()[name] for name in SCORES}
                | ({"model": run.model} if run.model else {})
                for run in self.runs
            ],
            "notes": list(self.notes),
        }


def summarise(runs: Sequence[StoredRun], level: float = 0.95) -> Summary:
    """Summarise runs of one system under one protocol.

    Args:
        runs: One per fold and seed.
        level: Of the intervals.

    Raises:
        UserError: There are no runs, two runs of the same fold and seed, or runs of different settings.
    """
    if not runs:
        raise UserError("There are no finished runs to summarise; give folders that `ser fit` or `ser crossval` made.")
    _check_one_experiment(runs)
    runs = sorted(runs, key=lambda run: (run.fold, -1 if run.seed is None else run.seed))
    pooled = _joined([run.test for run in runs])
    folds = [
        _part(number, [run for run in runs if run.fold == number], is_fold=True)
        for number in dict.fromkeys(run.fold for run in runs)
    ]
    seeds = [
        _part(seed, [run for run in runs if run.seed == seed], is_fold=False)
        for seed in sorted({run.seed for run in runs}, key=lambda seed: -1 if seed is None else seed)
    ]
    _, speakers = speaker_confusions([pooled])
    protocol = runs[0].protocol
    return Summary(
        system=runs[0].system,
        corpus=str(protocol["corpus"]),
        protocol=str(protocol["protocol"]["class_path"]).rpartition(".")[2],
        synthetic=bool(protocol["synthetic"]),
        runs=runs,
        folds=folds,
        seeds=seeds,
        scores={name: _score(name, folds, seeds, speakers, level) for name in SCORES},
        recalls={label: _recall(position, speakers, level) for position, label in enumerate(pooled.labels)},
        pooled=pooled,
        own_speakers=_own_speakers(runs, level),
        notes=_notes(runs, folds),
    )


def differing(one: StoredRun, other: StoredRun) -> list[Changed]:
    """Compare two runs in what decides their numbers, except fold and seed: if it differs, they are not averaged."""
    ours, theirs = (_facts(run) for run in (one, other))
    found = [Changed(name, ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]]
    known = {change.name for change in found}
    return found + [
        change
        for change in differences(other.config, one.config, FOLD_AND_SEED)
        if change.name.removeprefix("data.") not in known
    ]


def named(changes: Sequence[Changed]) -> str:
    """Name the settings that differ, for the middle of a sentence."""
    return some([f"{change.name} ({change.then} / {change.now})" for change in changes], FEW)


def _facts(run: StoredRun) -> dict[str, Any]:
    protocol = run.protocol
    found = {emotion: pair[0] for emotion, pair in protocol.get("found_and_published", {}).items()}
    return {
        "system": run.system,
        "corpus": protocol["corpus"],
        "speakers": sorted(protocol["genders"]),
        "utterances": found,
        "labels": protocol["labels"],
        "merge": protocol["merge"],
        "protocol": in_a_line(protocol["protocol"]),
        "checkpoint": run.model.get("sha256", "its own" if run.fitted else "unknown"),
    }


def in_a_line(described: Mapping[str, Any], only: Sequence[str] = ()) -> str:
    """Write a class and its arguments in a line."""
    name = described["class_path"].rpartition(".")[2]
    arguments = described.get("init_args", {})
    shown = [f"{key}={value}" for key, value in arguments.items() if value is not None and (not only or key in only)]
    return f"{name} ({', '.join(shown)})" if shown else str(name)


def _check_one_experiment(runs: Sequence[StoredRun]) -> None:
    seen: dict[tuple[int, int | None], StoredRun] = {}
    for run in runs:
        if changes := differing(runs[0], run):
            raise UserError(
                f"{runs[0].path} and {run.path} are not of one experiment: they differ in {named(changes)}. "
                "Give runs that differ in fold and seed only."
            )
        twin = seen.setdefault((run.fold, run.seed), run)
        if twin is not run:
            raise UserError(
                f"{twin.path} and {run.path} are both of fold {run.fold} with seed {run.seed}; give one of them."
            )
        same_fold = next(other for other in runs if other.fold == run.fold)
        if same_fold.fingerprint != run.fingerprint:
            raise UserError(
                f"{same_fold.path} and {run.path} are both of fold {run.fold}, but of different utterances (their "
                "fingerprints differ): the corpus changed in between. Run one of them again."
            )


def speaker_confusions(evaluations: Sequence[Evaluation]) -> tuple[list[str], IntArray]:
    """Sum the confusion matrices of several folds and seeds by speaker.

    Args:
        evaluations: Of the same labels.

    Returns:
        S names, sorted, and (S, K, K).
    """
    speakers = sorted({speaker for evaluation in evaluations for speaker in evaluation.speakers})
    number = {speaker: i for i, speaker in enumerate(speakers)}
    shape = (len(speakers), *2 * [len(evaluations[0].labels)])
    confusions = np.zeros(np.prod(shape), dtype=np.int64)
    for evaluation in evaluations:
        rows = np.array([number[speaker] for speaker in evaluation.speakers])
        cells = np.ravel_multi_index((rows, evaluation.targets, evaluation.predicted), shape)
        confusions += np.bincount(cells, minlength=len(confusions))
    return speakers, confusions.reshape(shape)


def _joined(parts: Sequence[Evaluation]) -> Evaluation:
    return Evaluation(
        labels=parts[0].labels,
        files=[file for part in parts for file in part.files],
        speakers=[speaker for part in parts for speaker in part.speakers],
        targets=np.concatenate([part.targets for part in parts]),
        probabilities=np.concatenate([part.probabilities for part in parts]),
    )


def _part(number: int | None, runs: Sequence[StoredRun], *, is_fold: bool) -> Part:
    scores = [run.test.scores() for run in runs]
    spread = {name: mean_and_std([score[name] for score in scores]) for name in SCORES}
    confusion = np.sum([run.test.confusion for run in runs], axis=0)
    epochs = [run.metrics["fit"]["epochs"] for run in runs if "fit" in run.metrics]
    return Part(
        number=number,
        tests=str(runs[0].protocol["tests"]) if is_fold else "",
        utterances=len(runs[0].test.files) if is_fold else sum(len(run.test.files) for run in runs),
        lacks=[label for label, row in zip(runs[0].test.labels, confusion, strict=True) if not row.any()],
        epochs=float(np.mean(epochs)) if epochs else math.nan,
        means={name: mean for name, (mean, _) in spread.items()},
        deviations={name: deviation for name, (_, deviation) in spread.items()},
        pooled={name: float(score(confusion)) for name, score in SCORES.items()},
    )


def _score(name: str, folds: Sequence[Part], seeds: Sequence[Part], speakers: Counts, level: float) -> Score:
    mean, fold_deviation = mean_and_std([fold.means[name] for fold in folds])
    return Score(
        mean=mean,
        fold_deviation=fold_deviation,
        seed_deviation=mean_and_std([seed.means[name] for seed in seeds])[1],
        pooled=float(SCORES[name](speakers.sum(axis=0))),
        interval=score_interval(speakers, SCORES[name], level),
    )


def _recall(position: int, speakers: Counts, level: float) -> Recall:
    value = float(recalls(speakers.sum(axis=0))[position])
    if (speakers[:, position].sum(axis=-1) == 0).any():  # a resample without the emotion would have no recall
        return Recall(value, Interval.none(level, "not all speakers have this emotion"))
    return Recall(value, score_interval(speakers, lambda confusions: recalls(confusions)[..., position], level))


def _own_speakers(runs: Sequence[StoredRun], level: float) -> dict[str, Interval]:
    """Return intervals for the speakers of a single fold; seeds, which all test them, count with their mean."""
    if len({run.fold for run in runs}) > 1:
        return {}
    confusion = np.mean([run.test.confusion for run in runs], axis=0)
    return {"uar": recall_interval(confusion, level), "wa": wilson(confusion.trace(), confusion.sum(), level)}


def _notes(runs: Sequence[StoredRun], parts: Sequence[Part]) -> list[str]:
    """Return which checkpoint was tested, what the folds' protocols note, once each, and what is missing."""
    folds = [part.number for part in parts]
    seeds = list(dict.fromkeys(run.seed for run in runs))
    noted: dict[str, list[int]] = {}
    for run in runs:
        for note in run.protocol["notes"]:
            if run.fold not in noted.setdefault(note, []):
                noted[note].append(run.fold)
    notes = _provenance(runs)
    notes += [
        note if len(where) == len(folds) else f"{note} (fold {', '.join(map(str, where))})"
        for note, where in noted.items()
    ]
    notes += [*_parts_only(runs), *_emotions_missing(parts)]
    tested = {speaker for run in runs for speaker in run.test.speakers}
    everyone = set(runs[0].protocol["genders"])
    if tested != everyone:
        notes.append(f"tested on {len(tested)} of {len(everyone)} speakers, without {_few(everyone - tested)}")
    there = {(run.fold, run.seed) for run in runs}
    lacking = [f"fold {fold} with seed {seed}" for fold in folds for seed in seeds if (fold, seed) not in there]
    if lacking:
        notes.append(f"incomplete: no {'; no '.join(lacking)}")
    return notes


def _provenance(runs: Sequence[StoredRun]) -> list[str]:
    """Say which checkpoint was tested and what it was trained on; nothing for runs that trained it themselves."""
    run = runs[0]
    if run.fitted:
        return []
    if not run.model:
        return ["a checkpoint of unknown origin and training data was tested"]
    fits = [
        f"{fit['corpus']}{' (synthetic speech)' * bool(fit.get('synthetic'))} fold {fit['fold']} "
        f"(speakers {_few(fit['speakers']['train'])}; selected on {_few(fit['speakers']['val'])})"
        for fit in run.model.get("trained_on") or []
    ]
    tested = _few(speaker for run in runs for speaker in run.test.speakers)
    return [
        f"trained on {', then on '.join(fits) or 'unknown data'}, tested on {run.protocol['corpus']} "
        f"(speakers {tested}): checkpoint {run.model['checkpoint']}, SHA-256 {str(run.model['sha256'])[:12]}, "
        f"system {run.system}"
    ]


def _parts_only(runs: Sequence[StoredRun]) -> Iterator[str]:
    """Say where only a part of a split was used."""
    for run in runs:
        there = run.protocol.get("test", {}).get("utterances", 0)
        if len(run.test.files) < there:
            yield f"only part of a test set was scored: {len(run.test.files)} of {there} utterances in {run.path.name}"
    trainer = runs[0].config.get("trainer", {})
    for name in ("limit_train_batches", "limit_val_batches", "overfit_batches"):
        limit = trainer.get(name)
        if limit and not (isinstance(limit, float) and limit == 1.0):  # 1 is one batch, 1.0 all of them
            yield f"only part of a split was used in training: {name} is {limit}"


def _emotions_missing(folds: Sequence[Part]) -> Iterator[str]:
    """Say which test sets lack emotions."""
    lacking = [f"fold {fold.number} ({fold.tests}) lacks {', '.join(fold.lacks)}" for fold in folds if fold.lacks]
    if lacking:
        more = f"; {len(lacking) - FEW} more folds lack some" if len(lacking) > FEW else ""
        unlike = any(fold.lacks != folds[0].lacks for fold in folds)
        mean = ": compare the pooled score, not the mean over folds" if unlike else ""
        folds_lacking = f"not every test set has all emotions: {'; '.join(lacking[:FEW])}{more}"
        yield f"{folds_lacking}. Their UAR and macro-F1 are over fewer emotions{mean}"


def _few(names: Iterable[str]) -> str:
    return some(sorted(set(names)), FEW)
