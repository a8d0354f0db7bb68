"""The page: every part of the report in the template."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from ser import __version__
from ser.evaluation.experiments import Experiment
from ser.report.calibration import calibration
from ser.report.facts import facts, warnings
from ser.report.league import league
from ser.report.mistakes import Players, confident_mistakes
from ser.report.published import beside_the_paper
from ser.report.scores import curves_plot, matrix, recalls_plot, runs_table, scores_table
from ser.report.speakers import speakers_plot
from ser.runs.folder import StoredRun
from ser.runs.scores import percent
from ser.settings.config_yaml import dump


def page(experiments: Sequence[Experiment], title: str, left_out: Sequence[str] = (), audio: bool = False) -> bytes:
    """Return the report as one self-contained HTML page.

    Args:
        experiments: To be shown.
        title: Of the page.
        left_out: Which runs are not shown, and why.
        audio: Embed the recordings of the mistakes.

    Raises:
        UserError: The corpus of the recordings is missing.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ser.report"),
        autoescape=True,  # labels, speakers and file names may hold markup
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # browsers reject NaN
    players = Players() if audio else None
    parts = [_experiment(f"e{number}", e, players) for number, e in enumerate(experiments, start=1)]
    content = environment.get_template("report.html.jinja").render(
        title=title,
        version=__version__,
        left_out=left_out,
        audio=audio,
        league=league("league-plot", experiments) if len(experiments) > 1 else None,
        experiments=parts,
        runs=sum(len(experiment.summary.runs) for experiment in experiments),
        plotly=get_plotlyjs(),
    )
    return content.encode(errors="backslashreplace")  # a file name need not be UTF-8


def _experiment(id: str, experiment: Experiment, players: Players | None) -> dict[str, Any]:
    summary = experiment.summary
    first = summary.runs[0]
    apart = [f"A separate experiment: it {experiment.apart}."] if experiment.apart else []
    speakers, gaps = speakers_plot(f"{id}-speakers", summary)
    return {
        "id": id,
        "name": experiment.name,
        "warnings": [*apart, *warnings(summary)],
        "scores": scores_table(summary),
        "folds": runs_table(summary.runs) if len(summary.runs) > 1 else None,
        "facts": facts(summary),
        "config": dump(first.config) if first.config else "",
        "config_of": first.path.name,
        "matrix": matrix(f"{id}-matrix", summary),
        "recalls": recalls_plot(f"{id}-recalls", summary),
        "speakers": speakers,
        "gaps": gaps,
        "curves": curves_plot(f"{id}-curves", summary.runs),
        "calibration": calibration(f"{id}-calibration", summary),
        "mistakes": _mistakes(summary.runs, players),
        "published": beside_the_paper(f"{id}-paper", summary),
    }


def _mistakes(runs: Sequence[StoredRun], players: Players | None) -> list[dict[str, Any]]:
    shown = []
    for mistake in confident_mistakes(runs):
        audio, remark = None, ""
        if players is not None:
            audio, remark = players.source(Path(mistake.run.protocol["root"]), mistake.file)
        shown.append({"mistake": mistake, "audio": audio, "remark": remark})
    return shown
