"""A summary in the terminal: the scores of every fold and of all, recalls, the confusion matrix, and what to know."""

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ser.evaluation.summary import SCORES, Summary
from ser.runs import SYNTHETIC

COLUMNS = {"uar": "UAR %", "wa": "WA %", "macro_f1": "macro-F1 %"}


def print_summary(summary: Summary) -> None:
    """Print a summary."""
    console = Console()
    console.print(_scores(summary))
    console.print(_recalls(summary))
    print("Rows are the truth, columns what was recognised. Intervals are for other speakers of the same kind.")
    for name, interval in summary.own_speakers.items():
        where = "for the speakers of this fold, utterances taken as independent"
        print(f"{COLUMNS[name]}: {interval} {where}")
    remarks = dict.fromkeys(score.interval.note for score in summary.scores.values() if score.interval.note)
    for remark in remarks:
        print(f"* {remark}")
    for label, recall in summary.recalls.items():
        if recall.interval.note and recall.interval.note not in remarks:
            print(f"* recall of {label}: {recall.interval.note}")
    if summary.synthetic:
        print(SYNTHETIC)
    for note in summary.notes:
        print(f"Note: {note}")


def _scores(summary: Summary) -> Table:
    seeds = ["?" if seed.number is None else str(seed.number) for seed in summary.seeds]
    title = f"{summary.system} on {summary.corpus}, {summary.protocol}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
    table = _table(title, ["fold", "tests"], ["n", *COLUMNS.values(), "epochs"])
    for fold in summary.folds:
        row = [percent(fold.means[name], fold.deviations[name]) for name in SCORES]
        epochs = "" if math.isnan(fold.epochs) else f"{fold.epochs:.0f}"
        table.add_row(str(fold.number), escape(fold.tests), str(fold.utterances), *row, epochs)
    table.add_section()
    scores = [summary.scores[name] for name in SCORES]
    if len(summary.folds) > 1:
        table.add_row("", "mean ± std", "", *(percent(s.mean, s.fold_deviation) for s in scores))
    if len(seeds) > 1:
        table.add_row("", "± over seeds", "", *(f"± {100 * score.seed_deviation:.1f}" for score in scores))
    table.add_row("", "pooled", str(len(summary.pooled.files)), *(percent(score.pooled) for score in scores))
    table.add_row("", _interval(summary), "", *(escape(str(score.interval)) for score in scores))
    return table


def _recalls(summary: Summary) -> Table:
    labels = summary.pooled.labels
    seeds = len(summary.seeds)
    title = "All utterances" + (f", {seeds} seeds added up" if seeds > 1 else "")
    table = _table(title, [""], [*labels, "recall %", _interval(summary)])
    for label, row in zip(labels, summary.pooled.confusion.tolist(), strict=True):
        recall = summary.recalls[label]
        table.add_row(escape(label), *map(str, row), percent(recall.value), escape(str(recall.interval)))
    return table


def _interval(summary: Summary) -> str:
    return f"{100 * summary.scores['uar'].interval.level:.0f} % interval"


def percent(value: float, deviation: float = math.nan) -> str:
    """Return a share in percent, with its standard deviation where there is one."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:.1f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.1f}")


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(*words, title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in numbers:
        table.add_column(escape(column), justify="right")
    return table
