"""The report's plots, as plotly figures: readable in black and white, and by the colour-blind.

Series differ by dash and marker, not by colour alone; a matrix has one hue, darker for larger values. Names come from
files and folders: markup in them is escaped.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from ser.runs.scores import percent

INK = "#1a1a1a"
AXIS = {"showline": True, "ticks": "outside", "showgrid": False}
SHARES = {"tickformat": ".0%", "range": [0, 1.02]}
# Okabe and Ito's colours that stand out from white, each with a dash and a marker of its own.
STYLES = (
    ("#0072B2", "solid", "circle"),
    ("#D55E00", "dash", "diamond"),
    ("#009E73", "dot", "square"),
    ("#CC79A7", "dashdot", "triangle-up"),
)
ROW_PX = 30  # height of a row of a dot plot
CELL_PX = 56  # height of a row of a matrix
MARKED = 20  # a curve of so many points or fewer shows each
LONG = 16  # characters of a name that stands above its row rather than beside it
CURVES = {"val": "validation", "train": "training"}
SCALE = [[0.0, "#ffffff"], [0.5, "#6baed6"], [1.0, "#08306b"]]

Cells = Sequence[Sequence[tuple[float | None, str]]]  # of a matrix: share of the row (None if it is empty), and text


@dataclass(frozen=True)
class Point:
    """A value with its interval, where it has one.

    Attributes:
        value: A share, in [0, 1]; None is left out.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


def confusion_figure(labels: Sequence[str], cells: Cells) -> go.Figure:
    """Draw a confusion matrix, rows the truth.

    Args:
        labels: K classes.
        cells: K rows of K.
    """
    names = [plain(label) for label in labels]
    changing = confusion_state(cells)
    figure = go.Figure()
    look = {"colorscale": SCALE, "zmin": 0, "zmax": 1, "xgap": 2, "ygap": 2, "showscale": False, "hoverinfo": "skip"}
    figure.add_heatmap(z=changing["z"], x=names, y=names, **look)
    figure.add_scatter(
        x=names * len(names),
        y=[name for name in names for _ in names],
        text=changing["text"],
        textfont={"color": changing["ink"], "size": 12},
        mode="text",
        hovertemplate="truth %{y}, predicted as %{x}: %{text}<extra></extra>",
    )
    figure.update_xaxes(title="prediction", side="top", type="category", autotickangles=[0, -45, -90], showgrid=False)
    figure.update_yaxes(title="truth", autorange="reversed", type="category", showgrid=False)
    return _finished(figure, height=110 + CELL_PX * len(labels))


def confusion_state(cells: Cells) -> dict[str, list[Any]]:
    """Return the parts of a matrix that depend on the chosen fold: shares, and text and its colour cell by cell."""
    flat = [cell for row in cells for cell in row]
    return {
        "z": [[share for share, _ in row] for row in cells],
        "text": [text for _, text in flat],
        "ink": [_legible(share or 0) for share, _ in flat],
    }


def _legible(share: float) -> str:
    """Return the colour of a text, black or white, with the most contrast to its cell."""
    (color,) = sample_colorscale(SCALE, [min(share, 1.0)], colortype="tuple")
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color]
    luminance = sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return INK if luminance > 0.179 else "white"  # where both contrasts of WCAG are equal


def dots_figure(
    rows: Sequence[str], series: Mapping[str, Sequence[Point]], axis: str, chance: float | None = None
) -> go.Figure:
    """Draw a row of dots with intervals for every name.

    Args:
        rows: N names, the first on top.
        series: N points of each series.
        axis: What the values are.
        chance: Chance level, if it is to be shown.
    """
    figure = go.Figure()
    names = [plain(row) for row in rows]
    crowded = any(sum(point.value is not None for point in row) > 1 for row in zip(*series.values(), strict=True))
    for number, (name, points) in enumerate(series.items()):
        color, _, symbol = STYLES[number % len(STYLES)]
        shift = 0.3 * (number - (len(series) - 1) / 2) if crowded else 0  # intervals do not overlap
        above = [_length(point.value, point.high) for point in points]
        below = [_length(point.low, point.value) for point in points]
        ends = {"array": above, "arrayminus": below, "type": "data", "symmetric": False}
        figure.add_scatter(
            x=[point.value for point in points],
            y=[position + shift for position in range(len(rows))],
            error_x={**ends, "color": color, "thickness": 1.5, "width": 4},
            mode="markers",
            name=plain(name),
            customdata=[[row, _interval(point)] for row, point in zip(names, points, strict=True)],
            hovertemplate="%{customdata[0]}: %{x:.1%}%{customdata[1]}<extra></extra>",
            marker={"color": color, "symbol": symbol, "size": 10, "line": {"color": INK, "width": 1}},
        )
    figure.update_xaxes(title=axis, tickformat=".0%", range=[-0.02, 1.02], dtick=0.2, **AXIS)
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=names, range=[len(rows) - 0.4, -0.6])
    figure.update_layout(showlegend=len(series) > 1)
    if chance is not None:
        figure.add_vline(x=chance, annotation_position="bottom right", **_chance(chance))
    inside = max(map(len, rows)) > LONG
    if inside:
        figure.update_yaxes(showticklabels=False)
        where = {"x": 0, "xref": "paper", "xanchor": "left", "yanchor": "bottom", "yshift": 4, "showarrow": False}
        for position, name in enumerate(names):
            figure.add_annotation(text=name, y=position, **where)
    return _finished(figure, height=110 + (ROW_PX + 16 * inside) * max(len(rows), 2))


def curves_figure(
    histories: Mapping[str, Sequence[Mapping[str, float | None]]], best: Mapping[str, int], chance: float
) -> go.Figure:
    """Draw loss and UAR over the epochs of every run, training dotted and validation solid.

    Args:
        histories: A row per epoch of each run.
        best: The epoch with the best validation score, for the runs where it is known.
        chance: The UAR of chance.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
    for run, history in histories.items():
        common = {"showlegend": False, "meta": run, "col": 1}
        for place, score in enumerate(("uar", "loss"), start=1):
            for (split, name), (color, *_), dash in zip(CURVES.items(), STYLES[:2], ("solid", "dot"), strict=True):
                measured = [row for row in history if row.get(f"{split}/{score}") is not None]  # not in every epoch
                figure.add_scatter(
                    x=[row["epoch"] for row in measured],
                    y=[row[f"{split}/{score}"] for row in measured],
                    mode="lines+markers" if len(measured) <= MARKED else "lines",
                    marker={"size": 5},
                    name=name,
                    legendgroup=name,
                    line={"color": color, "dash": dash, "width": 2},
                    hovertemplate=f"{plain(run)}, {name}: %{{y:.3f}} in epoch %{{x}}<extra></extra>",
                    row=place,
                    **common,
                )
        if run in best:
            figure.add_scatter(
                x=[best[run]],
                y=[row.get("val/uar") for row in history if row["epoch"] == best[run]],
                mode="markers",
                name="best epoch",
                marker={"color": INK, "symbol": "star", "size": 11},
                hovertemplate=f"{plain(run)}: best epoch %{{x}}, UAR %{{y:.1%}}<extra></extra>",
                row=1,
                **common,
            )
    named: set[str] = set()
    for trace in figure.data:  # one entry each, however many runs
        trace.showlegend = trace.name not in named
        named.add(trace.name)
    figure.add_hline(y=chance, row=1, col=1, **_chance(chance))
    figure.update_yaxes(title="UAR", **SHARES, row=1, col=1)
    figure.update_yaxes(title="loss", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title="epoch", row=2, col=1)
    most = max(row["epoch"] or 0 for history in histories.values() for row in history)
    figure.update_xaxes(dtick=math.ceil((most + 1) / 8), **AXIS)
    return _finished(figure, height=480)


def reliability_figure(series: Mapping[str, Sequence[tuple[float, float, int]]]) -> go.Figure:
    """Draw accuracy over confidence; a calibrated network is on the diagonal.

    Args:
        series: (confidence, accuracy, utterances) of the filled bins, of each.
    """
    figure = go.Figure()
    diagonal = {"color": INK, "width": 1}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="calibrated", line=diagonal, hoverinfo="skip")
    most = max(count for bins in series.values() for _, _, count in bins)
    for number, (name, bins) in enumerate(series.items()):
        color, dash, symbol = STYLES[number]
        figure.add_scatter(
            x=[confidence for confidence, _, _ in bins],
            y=[accuracy for _, accuracy, _ in bins],
            customdata=[count for _, _, count in bins],
            mode="lines+markers",
            name=plain(name),
            line={"color": color, "dash": dash, "width": 2},
            marker={"color": color, "symbol": symbol, "size": [5 + 11 * (count / most) ** 0.5 for *_, count in bins]},
            hovertemplate="confidence %{x:.1%}, accuracy %{y:.1%} of %{customdata} utterances<extra></extra>",
        )
    figure.update_xaxes(title="confidence", **SHARES, **AXIS)
    figure.update_yaxes(title="accuracy", **SHARES)
    return _finished(figure, height=380)


def coverage_figure(coverage: Sequence[float], scores: Mapping[str, Sequence[float]], chance: float) -> go.Figure:
    """Draw scores over coverage, when the least confident predictions are rejected.

    Args:
        coverage: M shares of utterances that are accepted.
        scores: M of each score.
        chance: The UAR of chance.
    """
    figure = go.Figure()
    for number, (name, values) in enumerate(scores.items()):
        color, dash, _ = STYLES[number]
        figure.add_scatter(
            x=coverage,
            y=values,
            mode="lines",
            name=plain(name),
            line={"color": color, "dash": dash, "width": 2.5},
            hovertemplate=f"{plain(name)} %{{y:.1%}} at a coverage of %{{x:.0%}}<extra></extra>",
        )
    figure.update_xaxes(title="coverage", **SHARES, **AXIS)
    figure.add_hline(y=chance, **_chance(chance))
    figure.update_yaxes(title="score", **SHARES)
    return _finished(figure, height=380)


def plain(text: str) -> str:
    """Return text that plotly shows as it is."""
    return html.escape(text, quote=False)


def _chance(value: float) -> dict[str, Any]:
    """Return the style of the line at chance level."""
    return {
        "line": {"color": INK, "dash": "dash", "width": 1},
        "annotation_text": f"chance {percent(value, 0)}",
        "annotation_font_size": 11,
        "layer": "below",
    }


def _length(low: float | None, high: float | None) -> float:
    return 0.0 if low is None or high is None else high - low


def _interval(point: Point) -> str:
    return "" if point.low is None or point.high is None else f" ({percent(point.low)} to {percent(point.high)})"


def _finished(figure: go.Figure, height: int) -> go.Figure:
    """Give a figure the common layout; dragging scrolls the page instead of zooming."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 24, "t": 8, "b": 8},
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",  # the shadow of a scrolled matrix shows through
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        dragmode=False,
        hoverlabel={"bgcolor": "white"},
    )
    for axes in (figure.update_xaxes, figure.update_yaxes):
        axes(automargin=True, fixedrange=True, zeroline=False, linecolor=INK, tickcolor=INK, title_standoff=10)
    figure.update_yaxes(gridcolor="#dddddd", ticks="", ticklen=4)
    return figure
