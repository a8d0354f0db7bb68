"""What a sweep shows: a live table of its best trials, and a page of what mattered."""

import html
import math
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from optuna import Study, visualization
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from ser.trials import ended_and_running

SHOWN = 10  # trials in the table
REFRESH_S = 1
SCORE = "validation UAR"
STATES = ("complete", "pruned", "failed", "given back", "running", "waiting")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem }
table { border-collapse: collapse }
.figures { display: flex; flex-wrap: wrap }
.figures > div { flex-grow: 1 }
th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid #ccc }
"""


class TrialTable:
    """The best trials and those that run; a terminal shows it all along, a file a line per trial and it at the end.

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
        self._said = {trial.number for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}

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
            self._say_ended()
            self.console.print(self._table())

    def show(self) -> None:
        """Bring what is shown up to date."""
        if time.monotonic() < self._shown + REFRESH_S:
            return
        self._shown = time.monotonic()
        if self.console.is_terminal:
            self.live.update(self._table(), refresh=True)
        else:
            self._say_ended()

    def _say_ended(self) -> None:
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number not in self._said:
                self._said.add(trial.number)
                settings = ", ".join(f"{name} {_brief(value)}" for name, value in trial.params.items())
                print(f"Trial {trial.number}: {_score(trial)} ({_epochs(trial)} epochs; {settings})", flush=True)

    def _table(self) -> Group:
        trials = self.study.get_trials(deepcopy=False)
        completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        best = sorted(completed, key=lambda trial: -(trial.value or 0))[:SHOWN]
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        names = list(dict.fromkeys(name for trial in trials for name in trial.params))
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        for column in ("trial", "UAR", "epochs", *_short(names)):
            table.add_column(column, justify="right", overflow="fold")
        for trial in (*best, *running):
            settings = [_brief(trial.params[name]) if name in trial.params else "" for name in names]
            style = "dim" if trial.state == TrialState.RUNNING else "bold" if trial is best[0] else None
            table.add_row(str(trial.number), _score(trial), str(_epochs(trial)), *settings, style=style)
        ended, _ = ended_and_running(self.study)
        return Group(table, f"{ended} of {self.count} trials: {_states(trials)}")


def sweep_page(study: Study, notes: Sequence[str]) -> bytes:
    """Return a page of the best settings, the history and what mattered: one HTML file that needs no network.

    Args:
        study: With a completed trial.
        notes: Sentences that say what was measured.
    """
    title = html.escape(study.study_name)
    cells = (map(html.escape, (name, str(value))) for name, value in study.best_trial.params.items())
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in cells)
    parts = [
        f"<h1>{title}</h1>",
        *(f"<p>{html.escape(note)}</p>" for note in notes),
        f"<p>Trials: {_states(study.get_trials(deepcopy=False))}.</p>",
        f"<h2>Best settings</h2><table>{rows}</table>",
    ]
    script = True  # plotly's own, in the first figure
    for heading, text, figures in _figures(study):
        parts.append(f"<h2>{heading}</h2><p>{text}</p><div class='figures'>")
        for figure in figures:
            figure.update_layout(title=None, template="plotly_white", margin={"t": 20})
            parts.append(figure.to_html(full_html=False, include_plotlyjs=script))
            script = False
        parts.append("</div>")
    head = f"<meta charset='utf-8'><title>{title}</title><style>{STYLE}</style>"
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>".encode()


def _figures(study: Study) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield headings, what is shown, and figures if there are trials enough to draw them."""
    history = visualization.plot_optimization_history(study, target_name=SCORE)
    yield "History", "Every completed trial, and the best until then.", [history]

    epochs = visualization.plot_intermediate_values(study).update_layout(xaxis_title="epoch", yaxis_title=SCORE)
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
    yield (
        "Importance",
        f"{what}, by {len(completed)} completed trials; a few dozen make it worth reading.",
        [importance],
    )

    slices = [
        visualization.plot_slice(study, params=[name], target_name=SCORE)
        .update_layout(width=310, height=310)
        .update_traces(marker_showscale=False)
        for name in study.best_trial.params
    ]
    yield "Parameters", "Every completed trial by each parameter; the later the trial, the darker.", slices


def percent(share: float) -> str:
    """Write a share as the papers do."""
    return f"{share:.1%}"


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
        return "failed" if "error" in trial.user_attrs else "given back"  # its process ended; another repeats it
    return trial.state.name.lower()


def _epochs(trial: FrozenTrial) -> int:
    return max(trial.intermediate_values, default=0)


def _brief(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _short(names: Sequence[str]) -> list[str]:
    """Return the last part of each name where that tells them apart."""
    last = Counter(name.rpartition(".")[2] for name in names)
    return [name.rpartition(".")[2] if last[name.rpartition(".")[2]] == 1 else name for name in names]
