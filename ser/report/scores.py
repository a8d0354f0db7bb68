"""The report's scores, matrices, recalls and curves, out of a summary and its runs."""

from collections.abc import Mapping, Sequence

from ser.evaluation.summary import SCORES, Summary
from ser.report.parts import NAMES, Plot, TextTable, matrix_plot, percent, point, remarks
from ser.report.plots import curves_figure, dots_figure
from ser.runs.folder import Evaluation, StoredRun


def scores_table(summary: Summary) -> TextTable:
    """Return the scores over folds, over seeds and of all utterances."""
    scores = list(summary.scores.values())
    rows = []
    if len(summary.folds) > 1:
        rows.append(["mean of folds", *(percent(score.mean) for score in scores)])
        rows.append(["± over folds", *(_points(score.fold_deviation) for score in scores)])
    if len(summary.seeds) > 1:
        rows.append(["± over seeds", *(_points(score.seed_deviation) for score in scores)])
    rows.append(["all utterances", *(percent(score.pooled) for score in scores)])
    level = percent(scores[0].interval.level, 0)
    rows.append([f"{level} interval", *(str(score.interval) for score in scores)])
    notes = ["The interval is of the score of all utterances, for other speakers of the same kind."]
    if own := summary.own_speakers:
        rows.append(["these speakers", *(str(own[name]) if name in own else "–" for name in summary.scores)])
        notes.append("That for these speakers takes the utterances as independent.")
    notes += remarks([score.interval for score in scores])
    return TextTable("Scores on the test sides", ["", *(NAMES[name] for name in summary.scores)], rows, notes=notes)


def runs_table(runs: Sequence[StoredRun]) -> TextTable:
    """Return the scores of every run."""
    header = ["run", "tests", "utterances", *NAMES.values(), "tested checkpoint", "fingerprint"]
    rows = []
    for run in runs:
        scores = run.test.scores()
        tested = run.metrics.get("test", {}).get("checkpoint") or "–"
        numbers = [percent(scores[name]) for name in SCORES]
        tests = str(run.protocol["tests"])
        rows.append([run.path.name, tests, str(len(run.test.files)), *numbers, str(tested), run.fingerprint])
    return TextTable("Scores of every run", header, rows, words=2)


def matrix(id: str, summary: Summary) -> Plot:
    """Return the confusion matrix of all runs and of each, one of which is shown."""
    if len(summary.runs) == 1:
        return matrix_plot(id, {summary.runs[0].path.name: summary.pooled})
    shown: dict[str, Evaluation] = {"All runs": summary.pooled}
    for run in summary.runs:
        shown[f"{run.path.name} (tests {run.protocol['tests']})"] = run.test
    return matrix_plot(id, shown)


def recalls_plot(id: str, summary: Summary) -> Plot:
    """Return the recall of every emotion with its interval."""
    recalls = summary.recalls
    support = summary.pooled.confusion.sum(axis=1).tolist()
    marked = [recall.interval for recall in recalls.values()]
    rows = [
        [label, percent(recall.value), str(recall.interval), str(count)]
        for (label, recall), count in zip(recalls.items(), support, strict=True)
    ]
    known = {label: recall.value for label, recall in recalls.items() if recall.value == recall.value}
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    said = (
        f"Recall of each emotion over all utterances, with its {percent(marked[0].level, 0)} interval for other "
        f"speakers, where there is one. Best: {best} ({percent(known[best])}); "
        f"worst: {worst} ({percent(known[worst])})."
    )
    return Plot(
        id=id,
        description=said,
        figure=dots_figure(
            list(recalls),
            {"recall": [point(r.value, r.interval) for r in recalls.values()]},
            "recall",
            chance=1 / len(recalls),
        ),
        table=TextTable("Recall", ["emotion", "recall", "interval", "times tested"], rows, notes=remarks(marked)),
    )


def curves_plot(id: str, runs: Sequence[StoredRun]) -> Plot | None:
    """Return the learning curves of the runs that have them."""
    trained = {run.path.name: run for run in runs if run.history}
    if not trained:
        return None
    best = {name: run.metrics["val"]["best_epoch"] for name, run in trained.items() if "val" in run.metrics}
    rows = []
    for name, run in trained.items():
        chosen = next((row for row in run.history if row["epoch"] == best.get(name)), run.history[-1])
        scores = (percent(chosen.get(side)) for side in ("val/uar", "train/uar"))
        losses = (_loss(_last(run.history, side)) for side in ("val/loss", "train/loss"))
        rows.append([name, str(len(run.history)), str(best.get(name, "–")), *scores, *losses])
    header = ["run", "epochs", "best epoch", "validation UAR then", "training UAR then"]
    described = (
        "UAR and loss of every run over the epochs: validation solid, training dotted; a star is the epoch that "
    )
    return Plot(
        id=id,
        description=f"{described}was best on validation.",
        figure=curves_figure({name: run.history for name, run in trained.items()}, best, 1 / len(runs[0].test.labels)),
        table=TextTable("Learning curves", [*header, "last validation loss", "last training loss"], rows),
        choices=[("", "all runs"), *((name, name) for name in trained)] if len(trained) > 1 else (),
    )


def _points(deviation: float) -> str:
    return f"{100 * deviation:.1f}"


def _last(history: Sequence[Mapping[str, float | None]], name: str) -> float | None:
    """Return the latest value that was measured: validation may come in some epochs only."""
    return next((row[name] for row in reversed(history) if row.get(name) is not None), None)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
