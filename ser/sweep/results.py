"""What a sweep shows: a live table of the best trials, and a page about the search."""

import html
import math
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from optuna import Study, visualization
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live

from ser.runs.scores import percent, points
from ser.sweep.trials import ended_and_running
from ser.terminal.tables import PlainTable

SHOWN = 10  # trials in the table
REFRESH_S = 1
SCORE = "validation UAR"
BESIDE = 25  # characters of the columns beside the settings
LONG = 40  # characters of a cell that is broken into lines
ABOVE = {"orientation": "h", "y": 1, "yanchor": "bottom"}  # the legend, so that a chart has all the width
CHART = {"responsive": True, "displayModeBar": False}
STATES = ("complete", "pruned", "failed", "requeued", "running", "waiting")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem }
table { border-collapse: collapse }
.wide { overflow-x: auto }
.figures { display: flex; flex-wrap: wrap }
.figures > div { flex-grow: 1 }
th, td { text-align: left; vertical-align: top; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid #ccc }
th, td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums }
.wide th, .wide td { white-space: nowrap }
.wide td.long { white-space: normal; min-width: 16rem }
"""


class TrialTable:
    """The best and the running trials: live in a terminal; elsewhere a line per trial, and the table at the end.

    Args:
        study: The study.
        count: Trials that it is to have.
    """

    def __init__(self, study: Study, count: int) -> None:
        self.study = study
        self.count = count
        self.console = Console()
        self.live = Live(console=self.console, auto_refresh=False)  # no thread of its own: trials are forked
        self._shown = -math.inf
        self._printed = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}

    def __enter__(self) -> "TrialTable":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._shown = -math.inf
        if self.console.is_terminal:
            self.show()
            self.live.stop()
        else:
            self._print_ended()
            self.console.print(self._table())

    def show(self) -> None:
        """Update the table."""
        if time.monotonic() < self._shown + REFRESH_S:
            return
        self._shown = time.monotonic()
        if self.console.is_terminal:
            self.live.update(self._table(), refresh=True)
        else:
            self._print_ended()

    def _print_ended(self) -> None:
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in self._printed:
                self._printed.add(trial.number)
                settings = ", ".join(f"{name} {_brief(value)}" for name, value in trial.params.items())
                print(f"Trial {trial.number}: {_score(trial)} ({_epochs(trial)} epochs; {settings})", flush=True)

    def _table(self) -> Group:
        trials = self.study.get_trials(deepcopy=False)
        completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        best = sorted(completed, key=lambda trial: -(trial.value or 0))[:SHOWN]
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        shown = [*best, *running]
        headers, rows = _short(_names(trials)), [[*map(_brief, _settings(trial, trials))] for trial in shown]
        words, numbers = [], ["trial", "UAR", "epochs", *headers]
        if sum(max(map(len, column)) + 2 for column in zip(headers, *rows, strict=True)) > self.console.width - BESIDE:
            words, numbers = ["trial", "UAR", "epochs", "settings"], []
            rows = [[", ".join(map(" ".join, zip(headers, row, strict=True)))] for row in rows]
        table = PlainTable(words, numbers)
        for trial, row in zip(shown, rows, strict=True):
            style = "dim" if trial.state == TrialState.RUNNING else "bold" if trial is best[0] else None
            table.add_row(str(trial.number), _score(trial), str(_epochs(trial)), *row, style=style)
        ended, _ = ended_and_running(self.study)
        return Group(table, f"{ended} of {self.count} trials: {_states(trials)}")


def sweep_page(study: Study, notes: Sequence[str]) -> bytes:
    """Return a page of the best settings, the history and what mattered: one HTML file that needs no network.

    Args:
        study: With a completed trial.
        notes: Sentences that say what was measured.
    """
    title = html.escape(study.study_name)
    trials = study.get_trials(deepcopy=False)
    best = _html_table([list(item) for item in study.best_trial.params.items()])
    parts = [
        f"<h1>{title}</h1>",
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        f"<p>Trials: {_states(trials)}.</p>",
        f"<h2>Best settings</h2>{best}",
    ]
    script = True  # plotly's own, in the first figure
    for heading, text, figures in _figures(study):
        parts.append(f"<h2>{heading}</h2><p>{text}</p><div class='figures'>")
        for figure in figures:
            figure.update_layout(title=None, template="plotly_white", margin={"t": 20}, legend=ABOVE)
            parts.append(figure.to_html(full_html=False, include_plotlyjs=script, config=CHART))
            script = False
        parts.append("</div>")
    listed = _html_table(_rows(trials), ["trial", "state", "UAR %", *_short(_names(trials)), "epochs", "run folder"])
    parts.append(f"<h2>Trials</h2><p>The best first, by {SCORE}.</p><div class='wide'>{listed}</div>")
    head = (
        f"<meta charset='utf-8'><meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{title}</title><style>{STYLE}</style>"
    )
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>".encode()


def _rows(trials: Sequence[FrozenTrial]) -> Iterator[list[Any]]:
    """Yield a row for each trial: number, state, score in percent, settings, epochs and run folders."""
    for trial in sorted(trials, key=lambda trial: (-_best_so_far(trial), trial.number)):
        state = f"failed: {trial.user_attrs['error']}" if "error" in trial.user_attrs else _state(trial)
        score = points(_best_so_far(trial)) if _best_so_far(trial) >= 0 else ""
        folders = ", ".join(map(str, trial.user_attrs.get("runs", {}).get("folders", [])))
        yield [trial.number, state, score, *map(_brief, _settings(trial, trials)), _epochs(trial), folders]


def _html_table(rows: Iterable[Sequence[Any]], header: Sequence[str] = ()) -> str:
    """Return a table as HTML, everything in it escaped; the first cell of a row is its header."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    lines = [f"<thead><tr>{head}</tr></thead>" if header else ""]
    for first, *others in rows:
        cells = "".join(f"<td{_wraps(cell)}>{html.escape(str(cell))}</td>" for cell in others)
        lines.append(f"<tr><th>{html.escape(str(first))}</th>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _wraps(cell: Any) -> str:
    return " class='long'" if len(str(cell)) > LONG else ""


def _figures(study: Study) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield headings, what is shown, and figures if there are trials enough to draw them."""
    history = visualization.plot_optimization_history(study, target_name=SCORE)
    yield "History", "Every completed trial, and the best so far.", [history.update_yaxes(tickformat=".1%")]

    epochs = visualization.plot_intermediate_values(study)
    for line in epochs.data:  # whose steps are the epochs done
        line.x = [step - 1 for step in line.x]
    epochs.update_layout(xaxis_title="epoch", yaxis_title=SCORE, yaxis_tickformat=".1%")
    what = f"The best {SCORE} so far, of the first fold if there are several. A line that ends early was pruned."
    yield "Epochs", what, [epochs]

    completed = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    what = f"How much each parameter tells good trials from others (PED-ANOVA), by {len(completed)} completed trials"
    if len({trial.value for trial in completed}) < 2:
        yield "Importance", f"{what}: it takes some that differ in score.", []
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that trials are few, which the page says
        importance = visualization.plot_param_importances(study, target_name=SCORE)
    yield "Importance", f"{what}; a few dozen make it worth reading.", [importance]

    slices = [
        visualization.plot_slice(study, params=[name], target_name=SCORE)
        .update_layout(width=310, height=310, yaxis_tickformat=".0%")
        .update_traces(marker_showscale=False)
        for name in study.best_trial.params
    ]
    yield "Parameters", "Every completed trial by each parameter; the later the trial, the darker.", slices


def _score(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return percent(trial.values[0])
    if "error" in trial.user_attrs:
        return f"failed: {trial.user_attrs['error']}"
    so_far = max(trial.intermediate_values.values(), default=None)
    return _state(trial) if so_far is None else f"{_state(trial)} {percent(so_far)}"


def _states(trials: Sequence[FrozenTrial]) -> str:
    counts = Counter(map(_state, trials))
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.FAIL:
        return "failed" if "error" in trial.user_attrs else "requeued"  # its process ended; the trial runs again
    return trial.state.name.lower()


def _epochs(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values, default=0)


def _best_so_far(trial: FrozenTrial) -> float:
    """Return a completed trial's score, of another the best of its epochs so far, -1 where there is none."""
    return trial.values[0] if trial.values else max(trial.intermediate_values.values(), default=-1.0)


def _names(trials: Sequence[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _settings(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> list[Any]:
    """Return a trial's settings, in the order of all trials' names; "" for one that it lacks."""
    return [trial.params.get(name, "") for name in _names(trials)]


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _short(names: Sequence[str]) -> list[str]:
    """Return the last part of each name where that tells them apart."""
    last = Counter(name.rpartition(".")[2] for name in names)
    return [name.rpartition(".")[2] if last[name.rpartition(".")[2]] == 1 else name for name in names]
