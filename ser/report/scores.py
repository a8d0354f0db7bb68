"""The report's scores, matrices, recalls and curves."""

from collections.abc import Mapping, Sequence

from ser.evaluation.statistics import remarks
from ser.evaluation.summary import Summary
from ser.report.parts import Plot, TextTable, matrix_plot, point
from ser.report.plots import CURVES, curves_figure, dots_figure
from ser.runs.folder import Evaluation, StoredRun
from ser.runs.scores import NAMES, percent, points


def scores_table(summary: Summary) -> TextTable:
    """Return the scores over folds, over seeds and of all utterances."""
    scores = list(summary.scores.values())
    rows = []
    if len(summary.folds) > 1:
        rows.append(["mean of folds", *(percent(score.mean) for score in scores)])
        rows.append(["± over folds", *(points(score.fold_deviation) for score in scores)])
    if len(summary.seeds) > 1:
        rows.append(["± over seeds", *(points(score.seed_deviation) for score in scores)])
    rows.append(["pooled", *(percent(score.pooled) for score in scores)])
    rows.append([scores[0].interval.name, *(str(score.interval) for score in scores)])
    notes = ["The interval is of the pooled score, for unseen speakers of the same population."]
    if own := summary.own_speakers:
        rows.append(["these speakers", *(str(own[name]) if name in own else "–" for name in summary.scores)])
        notes.append("The interval for these speakers takes the utterances as independent.")
    notes += remarks(score.interval for score in scores)
    return TextTable("Scores on the test split", ["", *(NAMES[name] for name in summary.scores)], rows, notes=notes)


def runs_table(runs: Sequence[StoredRun]) -> TextTable:
    """Return the scores of every run."""
    header = ["run", "tests", "utterances", *NAMES.values(), "tested checkpoint", "fingerprint"]
    rows = []
    for run in runs:
        scores = run.test.scores()
        tested = run.metrics.get("test", {}).get("checkpoint") or "–"
        numbers = [percent(scores[name]) for name in NAMES]
        tests = str(run.protocol["tests"])
        rows.append([run.path.name, tests, str(len(run.test.files)), *numbers, str(tested), run.fingerprint])
    return TextTable("Scores of every run", header, rows, words=2)


def matrix(id: str, summary: Summary) -> Plot:
    """Return the confusion matrices of all runs together and of each."""
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
    dots = [point(recall.value, recall.interval) for recall in recalls.values()]
    known = {label: recall.value for label, recall in recalls.items() if recall.value == recall.value}
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    return Plot(
        id=id,
        description=f"Recall of each emotion over all utterances, with its {marked[0].name} for unseen speakers where "
        f"there is one. Best: {best} ({percent(known[best])}); worst: {worst} ({percent(known[worst])}).",
        figure=dots_figure(list(recalls), {"recall": dots}, "recall", chance=1 / len(recalls)),
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
        scores = (percent(chosen.get(f"{split}/uar")) for split in CURVES)
        losses = (_loss(_last(run.history, f"{split}/loss")) for split in CURVES)
        rows.append([name, str(len(run.history)), str(best.get(name, "–")), *scores, *losses])
    header = ["run", "epochs", "best epoch", *(f"{split} UAR then" for split in CURVES.values())]
    header += [f"last {split} loss" for split in CURVES.values()]
    return Plot(
        id=id,
        description="UAR and loss of every run over the epochs: validation solid, training dotted; a star marks the "
        "epoch with the best validation score.",
        figure=curves_figure({name: run.history for name, run in trained.items()}, best, 1 / len(runs[0].test.labels)),
        table=TextTable("Learning curves", header, rows),
        choices=[("", "all runs"), *((name, name) for name in trained)] if len(trained) > 1 else (),
    )


def _last(history: Sequence[Mapping[str, float | None]], name: str) -> float | None:
    """Return the latest value; not every epoch is validated."""
    return next((row[name] for row in reversed(history) if row.get(name) is not None), None)


def _loss(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
