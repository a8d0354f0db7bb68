"""A summary in the terminal: the scores of every fold and of all, recalls, the confusion matrix, and notes."""

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console

from ser.evaluation.statistics import remarks
from ser.evaluation.summary import Summary
from ser.runs.folder import ROWS_AND_COLUMNS, SYNTHETIC
from ser.runs.scores import NAMES, points
from ser.terminal.tables import PlainTable, side_by_side

WIDEST = 1000  # columns of a terminal, to measure a table
COLUMNS = {score: f"{name} %" for score, name in NAMES.items()}


def print_summary(summary: Summary) -> None:
    """Print a summary."""
    console = Console()
    console.print(_scores(summary))
    tables, legend = _recalls(summary, console)
    for table in tables:
        console.print(table)
    print(f"{ROWS_AND_COLUMNS} {legend}".rstrip())
    print("Intervals are for unseen speakers of the same population.")
    for name, interval in summary.own_speakers.items():
        print(f"{COLUMNS[name]}: {interval} for the speakers of this fold, with utterances taken as independent")
    explained = remarks(score.interval for score in summary.scores.values())
    for label, recall in summary.recalls.items():
        if recall.interval.note and f"* {recall.interval.note}" not in explained:
            explained.append(f"* recall of {label}: {recall.interval.note}")
    for remark in explained:
        print(remark)
    if summary.synthetic:
        print(SYNTHETIC)
    for note in summary.notes:
        print(f"Note: {note}")


def _scores(summary: Summary) -> PlainTable:
    seeds = [str(seed.number) for seed in summary.seeds if seed.number is not None]
    title = f"{summary.system} on {summary.corpus}, {summary.protocol}"
    title += f", seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" if seeds else ""
    table = PlainTable(["fold", "tests"], ["n", *COLUMNS.values(), "epochs"], title, whole_numbers=True)
    for fold in summary.folds:
        row = [_spread(fold.means[name], fold.deviations[name]) for name in NAMES]
        epochs = "" if math.isnan(fold.epochs) else f"{fold.epochs:.0f}"
        table.add_row(str(fold.number), fold.tests, str(fold.utterances), *row, epochs)
    table.add_section()
    scores = [summary.scores[name] for name in NAMES]
    if len(summary.folds) > 1:
        table.add_row("", "mean ± std", "", *(_spread(score.mean, score.fold_deviation) for score in scores))
    if len(summary.seeds) > 1:
        table.add_row("", "± over seeds", "", *(f"± {points(score.seed_deviation)}" for score in scores))
    table.add_row("", "pooled", str(len(summary.pooled.files)), *(points(score.pooled) for score in scores))
    table.add_row("", scores[0].interval.name, "", *(str(score.interval) for score in scores))
    return table


def _recalls(summary: Summary, console: Console) -> tuple[list[PlainTable], str]:
    """Return matrix and recalls in one table, or in two where the terminal is too narrow; and what short names mean."""
    labels = summary.pooled.labels
    seeds = len(summary.seeds)
    title = "All utterances" + (f", sum of {seeds} seeds" if seeds > 1 else "")
    counts = [list(map(str, row)) for row in summary.pooled.confusion.tolist()]
    recalls = [[points(recall.value), str(recall.interval)] for recall in summary.recalls.values()]
    both = [row + recall for row, recall in zip(counts, recalls, strict=True)]
    beside = ["recall %", summary.scores["uar"].interval.name]
    beside_width = sum(max(map(len, column)) + 1 for column in zip(beside, *recalls, strict=True))
    room = console.width - max(map(cell_len, labels)) - 1
    headers, legend = side_by_side(labels, room - beside_width)
    table = _filled(title, [*headers, *beside], labels, both, narrow=True)
    if console.measure(table, options=console.options.update(max_width=WIDEST)).maximum <= console.width:
        return [table], legend
    headers, legend = side_by_side(labels, room)
    matrix = _filled(title, headers, labels, counts, narrow=True)
    return [matrix, _filled("Recalls", beside, labels, recalls)], legend


def _filled(
    title: str, header: Sequence[str], names: Sequence[str], rows: Sequence[Sequence[str]], narrow: bool = False
) -> PlainTable:
    table = PlainTable([""], header, title, narrow, whole_numbers=True)
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *row)
    return table


def _spread(mean: float, deviation: float) -> str:
    """Write a mean with its standard deviation, where there is one, in percentage points."""
    return points(mean) + ("" if math.isnan(deviation) else f" ± {points(deviation)}")
