"""A summary in the terminal: the scores of every fold and of all, recalls, the confusion matrix, and what to know."""

import math
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from ser.evaluation.summary import SCORES, Summary
from ser.runs.folder import SYNTHETIC
from ser.terminal.tables import PlainTable, side_by_side

WIDEST = 1000  # columns of a terminal, to measure what a table would take
COLUMNS = {"uar": "UAR %", "wa": "WA %", "macro_f1": "macro-F1 %"}


def plain_console() -> Console:
    """Return a terminal that shows names as they are: [/01] and :smile: are such."""
    return Console(markup=False, emoji=False, highlight=False)


def print_summary(summary: Summary) -> None:
    """Print a summary."""
    console = plain_console()
    console.print(_scores(summary))
    tables, legend = _recalls(summary, console)
    for table in tables:
        console.print(table)
    print(f"Rows are the truth, columns what was recognised. {legend}".rstrip())
    print("Intervals are for other speakers of the same kind.")
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
    seeds = [str(seed.number) for seed in summary.seeds if seed.number is not None]
    title = f"{summary.system} on {summary.corpus}, {summary.protocol}"
    title += f", seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}" if seeds else ""
    table = _table(title, ["fold", "tests"], ["n", *COLUMNS.values(), "epochs"])
    for fold in summary.folds:
        row = [percent(fold.means[name], fold.deviations[name]) for name in SCORES]
        epochs = "" if math.isnan(fold.epochs) else f"{fold.epochs:.0f}"
        table.add_row(str(fold.number), fold.tests, str(fold.utterances), *row, epochs)
    table.add_section()
    scores = [summary.scores[name] for name in SCORES]
    if len(summary.folds) > 1:
        table.add_row("", "mean ± std", "", *(percent(s.mean, s.fold_deviation) for s in scores))
    if len(summary.seeds) > 1:
        table.add_row("", "± over seeds", "", *(f"± {100 * score.seed_deviation:.1f}" for score in scores))
    table.add_row("", "pooled", str(len(summary.pooled.files)), *(percent(score.pooled) for score in scores))
    table.add_row("", _interval(summary), "", *(str(score.interval) for score in scores))
    return table


def _recalls(summary: Summary, console: Console) -> tuple[list[Table], str]:
    """Return matrix and recalls in one table, or in two where the terminal is too narrow; and what short names mean."""
    labels = summary.pooled.labels
    seeds = len(summary.seeds)
    title = "All utterances" + (f", {seeds} seeds added up" if seeds > 1 else "")
    counts = [list(map(str, row)) for row in summary.pooled.confusion.tolist()]
    recalls = [[percent(recall.value), str(recall.interval)] for recall in summary.recalls.values()]
    both = [row + recall for row, recall in zip(counts, recalls, strict=True)]
    beside = ["recall %", _interval(summary)]
    beside_width = sum(max(map(len, column)) + 1 for column in zip(beside, *recalls, strict=True))
    room = console.width - max(map(cell_len, labels)) - 1
    headers, legend = side_by_side(labels, room - beside_width)
    table = _filled(_table(title, [""], [*headers, *beside], narrow=True), labels, both)
    if console.measure(table, options=console.options.update(max_width=WIDEST)).maximum <= console.width:
        return [table], legend
    headers, legend = side_by_side(labels, room)
    matrix = _filled(_table(title, [""], headers, narrow=True), labels, counts)
    return [matrix, _filled(_table("Recalls", [""], beside), labels, recalls)], legend


def _filled(table: Table, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    for name, row in zip(names, rows, strict=True):
        table.add_row(name, *row)
    return table


def _interval(summary: Summary) -> str:
    return f"{100 * summary.scores['uar'].interval.level:.0f} % interval"


def percent(value: float, deviation: float = math.nan) -> str:
    """Return a share in percent, with its standard deviation where there is one."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:.1f}" + ("" if math.isnan(deviation) else f" ± {100 * deviation:.1f}")


def _table(title: str, words: Sequence[str], numbers: Sequence[str], narrow: bool = False) -> Table:
    table = PlainTable(words, numbers, title, narrow=narrow)
    for column in table.columns[len(words) :]:
        column.no_wrap = True  # a long name goes on in the next line; a number never does
    return table
