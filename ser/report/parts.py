"""What a report is made of: tables, and plots with their text alternative."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ser.evaluation.statistics import Interval
from ser.report.plots import Cells, Point, confusion_figure, confusion_state
from ser.runs.folder import ROWS_AND_COLUMNS, Evaluation
from ser.runs.scores import in_words, percent

# Least widths in a matrix: of a column, of a character of the names of rows, and of the axis beside them.
CELL_PX, CHARACTER_PX, AXIS_PX = 30, 7, 60


@dataclass(frozen=True)
class TextTable:
    """A table; the first column names the rows.

    Attributes:
        caption: What it shows.
        header: Names of the columns.
        rows: As many cells each.
        id: Of the table in the page, for the page's script.
        words: How many columns, from the first, hold words; the others hold numbers.
        notes: Remarks below the table.
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
        description: What is shown, and how to read it: the caption, and the accessible name.
        figure: The plot.
        table: Its numbers.
        choices: (value, name) of what can be chosen.
        states: What the page shows for each choice.
        least_px: Its least width; in a narrower window it scrolls.
    """

    id: str
    description: str
    figure: go.Figure
    table: TextTable
    choices: Sequence[tuple[str, str]] = ()
    states: Sequence[Mapping[str, Any]] = ()
    least_px: int = 0

    @property
    def data(self) -> dict[str, Any]:
        """What the page's script draws, as plain data; NaN is None."""
        data: dict[str, Any] = json.loads(self.figure.to_json())
        return data


def sentence(text: str) -> str:
    """Begin with a capital and end with a full stop."""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def point(value: float, interval: Interval) -> Point:
    """Return a score in a plot; none where it is NaN."""
    if math.isnan(value):
        return Point(None)
    return Point(value) if math.isnan(interval.low) else Point(value, interval.low, interval.high)


def matrix_plot(id: str, evaluations: Mapping[str, Evaluation]) -> Plot:
    """Show confusion matrices, one at a time.

    Args:
        id: Of the plot.
        evaluations: By name, of the same labels; the first is shown until another is chosen.
    """
    labels = next(iter(evaluations.values())).labels
    shown = {name: cells(evaluation.confusion.tolist()) for name, evaluation in evaluations.items()}
    states = [
        {**confusion_state(matrix), "cells": _plain(matrix), "description": _described(name, evaluations[name])}
        for name, matrix in shown.items()
    ]
    choices = [(str(number), name) for number, name in enumerate(evaluations)]
    first = cells_plot(id, labels, next(iter(shown.values())), str(states[0]["description"]))
    return replace(first, choices=choices, states=states)


def cells_plot(id: str, labels: Sequence[str], matrix: Cells, description: str) -> Plot:
    """Show the cells of one confusion matrix."""
    return Plot(
        id=id,
        description=description,
        figure=confusion_figure(labels, matrix),
        table=TextTable(
            f"{ROWS_AND_COLUMNS} A cell holds the share of its row, and utterances.",
            ["truth", *labels],
            [[label, *row] for label, row in zip(labels, _plain(matrix), strict=True)],
            id=f"{id}-table",
        ),
        least_px=AXIS_PX + CHARACTER_PX * max(map(len, labels)) + CELL_PX * len(labels),
    )


def cells(counts: Sequence[Sequence[int]]) -> Cells:
    """Return share of the row and text of every cell of a (K, K) matrix."""
    rows = []
    for row in counts:
        total = sum(row)
        shares = [count / total if total else None for count in row]
        texts = ["–" if share is None else f"{percent(share, 0)}<br>{n}" for share, n in zip(shares, row, strict=True)]
        rows.append(list(zip(shares, texts, strict=True)))
    return rows


def _plain(matrix: Cells) -> list[list[str]]:
    return [[text.replace("<br>", " · ") for _, text in row] for row in matrix]


def _described(name: str, evaluation: Evaluation) -> str:
    files = len(set(evaluation.files))
    times = len(evaluation.files) // files  # of several seeds, or of overlapping folds
    count = f"{files} utterances{f', {times} times each' if times > 1 else ''}"
    described = f"{name}: {count}, {in_words(evaluation.scores())}"
    mistakes = evaluation.confusion.copy()
    np.fill_diagonal(mistakes, 0)
    most = int(mistakes.max())
    if not most:
        return f"{described}. No errors."
    truth, predicted = divmod(int(mistakes.argmax()), len(evaluation.labels))
    return (
        f"{described}. Most frequent error: {evaluation.labels[truth]} predicted as {evaluation.labels[predicted]}, "
        f"in {most} of {int(evaluation.confusion[truth].sum())} cases."
    )
