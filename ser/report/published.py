"""The paper's numbers beside ours, and how far they can be compared."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ser.evaluation.summary import Summary
from ser.report.papers import Result, published
from ser.report.parts import Plot, TextTable, cells, cells_plot, matrix_plot, sentence
from ser.report.plots import Cells
from ser.runs.scores import percent


@dataclass(frozen=True)
class BesideThePaper:
    """What a paper reports of a system, and our scores.

    Attributes:
        text: Which paper.
        table: Scores.
        caveats: How far they can be compared.
        matrices: Ours, then the paper's.
    """

    text: list[str]
    table: TextTable
    caveats: list[str]
    matrices: list[Plot]


def beside_the_paper(id: str, summary: Summary) -> BesideThePaper | None:
    """Return the paper's results on this corpus, or on others if there are none; None if nothing is published."""
    entry = published(summary.system)
    if entry is None:
        return None
    results = entry.on(summary.corpus) or list(entry.results)
    header = ["", "corpus", "protocol", "UAR", "WA", "utterances"]
    uar, wa = summary.scores["uar"], summary.scores["wa"]
    several = len(summary.folds) > 1
    protocol = f"{summary.protocol}, {len(summary.folds)} fold{'s' if several else ''}"
    uars = f"{percent(uar.pooled)} pooled" + (f", {percent(uar.mean)} mean of folds" if several else "")
    rows = [["ours", summary.corpus, protocol, uars, percent(wa.pooled), str(len(set(summary.pooled.files)))]]
    rows += [[_name(result), result.corpus, result.protocol, *_scores(result)] for result in results]
    theirs = [_theirs(f"{id}-{number}", result) for number, result in enumerate(results)]
    matrices = [plot for plot in theirs if plot is not None]
    return BesideThePaper(
        text=[f"{entry.paper}.", *_recalls(results)],
        table=TextTable("Our scores and the paper's", header, rows, words=3),
        caveats=_caveats(summary, results),
        matrices=[_ours(f"{id}-ours", summary, results), *matrices] if matrices else [],
    )


def _recalls(results: Sequence[Result]) -> list[str]:
    """Return the recalls that a paper reports without the matrix."""
    return [
        f"Its recalls on {result.corpus}: "
        + ", ".join(f"{label} {_printed(recall)}" for label, recall in zip(result.labels, result.recalls, strict=True))
        for result in results
        if result.recalls
    ]


def _caveats(summary: Summary, results: Sequence[Result]) -> list[str]:
    found = []
    if summary.synthetic:
        found.append("Our scores are of synthetic speech: they cannot be compared.")
    elif others := sorted({result.corpus for result in results} - {summary.corpus}):
        found.append(f"The paper's corpus is {', '.join(others)}, not {summary.corpus}: scores cannot be compared.")
    for result in results:
        if result.labels and set(result.labels) != set(summary.pooled.labels):
            found.append(f"The paper's emotions on {result.corpus} are {', '.join(result.labels)}.")
        if result.utterances and result.corpus == summary.corpus:
            found.append(f"The paper's score is over {result.utterances} utterances or segments: {result.protocol}.")
    found += [sentence(caveat) for result in results for caveat in result.caveats]
    return list(dict.fromkeys(found))


def _name(result: Result) -> str:
    return f"the paper, {result.setting}" if result.setting else "the paper"


def _scores(result: Result) -> list[str]:
    uar = _printed(result.uar) + (f" ± {result.deviation:.2f}" if result.deviation is not None else "")
    return [uar, _printed(result.wa), "–" if result.utterances is None else str(result.utterances)]


def _printed(value: float | None) -> str:
    return "–" if value is None else percent(value / 100, 2)


def _ours(id: str, summary: Summary, results: Sequence[Result]) -> Plot:
    """Return our matrix, in the paper's order of emotions if they are the same."""
    ours = summary.pooled
    wanted = next(result.labels for result in results if result.confusion is not None)
    if set(wanted) == set(ours.labels):
        order = [list(ours.labels).index(label) for label in wanted]
        position = np.argsort(order)  # of each of our emotions in the paper's order
        ours = replace(
            ours, labels=list(wanted), targets=position[ours.targets], probabilities=ours.probabilities[:, order]
        )
    return matrix_plot(id, {"Ours": ours})


def _theirs(id: str, result: Result) -> Plot | None:
    if result.confusion is None:
        return None
    shown: Cells = [[(share / 100, percent(share / 100, 0)) for share in row] for row in result.confusion.tolist()]
    if result.counts is not None:
        shown = cells(result.counts.tolist())
    return cells_plot(id, result.labels, shown, f"{_name(result).capitalize()}: {result.corpus}, {result.protocol}.")
