"""What a report is made of: tables, plots with their text alternative, and how numbers are written."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ser.evaluation.statistics import Interval
from ser.report.plots import Cells, Point, confusion_figure, confusion_state
from ser.runs.folder import Evaluation

NAMES = {"uar": "UAR", "wa": "WA", "macro_f1": "macro-F1"}


@dataclass(frozen=True)
class TextTable:
    """A table; the first column names the rows.

    Attributes:
        caption: What it shows.
        header: Names of the columns.
        rows: As many cells each.
        id: Of the table in the page, where a script must find it.
        words: How many columns, from the first, hold words; the others hold numbers.
        notes: What to know of the numbers, below them.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    id: str = ""
    words: int = 1
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Plot:
    """A plot with its text alternative.

    Attributes:
        id: In the page.
        description: What is shown, and how to read it: the caption, and the name for those who do not see the plot.
        figure: The plot.
        table: Its numbers.
        choices: (value, name) of what can be chosen to be shown.
        states: What the page shows for each choice, where it must be told.
    """

    id: str
    description: str
    figure: go.Figure
    table: TextTable
    choices: Sequence[tuple[str, str]] = ()
    states: Sequence[Mapping[str, Any]] = ()

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script draws, as plain data; NaN is None there."""
        data: dict[str, Any] = json.loads(self.figure.to_json())
        return data


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share in percent; the space does not break."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.{digits}f}\N{NO-BREAK SPACE}%"


def sentence(text: str) -> str:
    """Begin with a capital and end with a full stop."""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def point(value: float, interval: Interval | None = None) -> Point:
    """Return what a plot shows of a score; nothing where it is NaN."""
    if math.isnan(value):
        return Point(None)
    if interval is None or math.isnan(interval.low):
        return Point(value)
    return Point(value, interval.low, interval.high)


def remarks(intervals: Sequence[Interval]) -> list[str]:
    """Return why intervals that are marked with an asterisk are missing, or not to be relied on."""
    return [f"* {sentence(note)}" for note in dict.fromkeys(interval.note for interval in intervals) if note]


def matrix_plot(id: str, evaluations: Mapping[str, Evaluation]) -> Plot:
    """Show confusion matrices, one at a time.

    Args:
        id: Of the plot.
        evaluations: By name, of the same labels; the first is shown at first.
    """
    labels = next(iter(evaluations.values())).labels
    shown = {name: cells(evaluation.confusion.tolist()) for name, evaluation in evaluations.items()}
    states = [
        {**confusion_state(matrix), "cells": _plain(matrix), "description": _described(name, evaluations[name])}
        for name, matrix in shown.items()
    ]
    first = next(iter(shown.values()))
    return Plot(
        id=id,
        description=str(states[0]["description"]),
        figure=confusion_figure(labels, first),
        table=table_of_cells(labels, first, id=f"{id}-table"),
        choices=[(str(number), name) for number, name in enumerate(evaluations)],
        states=states,
    )


def cells(counts: Sequence[Sequence[int]]) -> Cells:
    """Return share of the row and text of every cell of a (K, K) matrix."""
    rows = []
    for row in counts:
        total = sum(row)
        shares = [count / total if total else None for count in row]
        texts = ["–" if share is None else f"{100 * share:.0f}%<br>{n}" for share, n in zip(shares, row, strict=True)]
        rows.append(list(zip(shares, texts, strict=True)))
    return rows


def table_of_cells(labels: Sequence[str], matrix: Cells, id: str) -> TextTable:
    """Return the text alternative of a confusion matrix."""
    return TextTable(
        "Rows are the truth, columns what was recognised: share of the row, utterances",
        ["truth", *labels],
        [[label, *row] for label, row in zip(labels, _plain(matrix), strict=True)],
        id=id,
    )


def _plain(matrix: Cells) -> list[list[str]]:
    return [[text.replace("<br>", " · ") for _, text in row] for row in matrix]


def _described(name: str, evaluation: Evaluation) -> str:
    scores = evaluation.scores()
    files = len(set(evaluation.files))
    times = len(evaluation.files) // files  # of several seeds, or of overlapping folds
    count = f"{files} utterances{f', {times} times each' if times > 1 else ''}"
    said = f"{name}: {count}, " + ", ".join(f"{NAMES[score]} {percent(scores[score])}" for score in NAMES)
    mistakes = evaluation.confusion.copy()
    np.fill_diagonal(mistakes, 0)
    most = int(mistakes.max())
    if not most:
        return f"{said}. Nothing was confused."
    truth, recognised = divmod(int(mistakes.argmax()), len(evaluation.labels))
    return (
        f"{said}. Most often confused: {evaluation.labels[truth]}, recognised as {evaluation.labels[recognised]} "
        f"in {most} of {int(evaluation.confusion[truth].sum())} cases."
    )
