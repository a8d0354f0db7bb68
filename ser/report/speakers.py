"""The report's scores by speaker and by gender."""

import math

from ser.evaluation.groups import UNKNOWN, Group, Groups, by_gender, by_speaker
from ser.evaluation.statistics import Difference, Interval
from ser.evaluation.summary import Summary, speaker_confusions
from ser.report.parts import Plot, TextTable, percent, point, remarks
from ser.report.plots import Point, dots_figure


def speakers_plot(id: str, summary: Summary) -> tuple[Plot, list[str]]:
    """Return the UAR of every speaker, the worst first, and what is to be said of speakers and of genders."""
    names, confusions = speaker_confusions([summary.pooled])
    genders = summary.runs[0].genders
    gender_of = {name: genders.get(name) or UNKNOWN for name in names}
    seeds = len(summary.seeds)
    speakers = by_speaker(names, confusions, seeds)
    series = {
        gender: [
            point(group.uar, group.interval) if gender_of[group.name] == gender else Point(None)
            for group in speakers.groups
        ]
        for gender in sorted(set(gender_of.values()))
    }
    rows = [[group.name, gender_of[group.name], *_cells(group)] for group in speakers.groups]
    level = percent(speakers.groups[0].interval.level, 0)
    plot = Plot(
        id=id,
        description=f"UAR of every speaker, the worst recognised first, with its {level} interval for other utterances "
        "of the same speaker.",
        figure=dots_figure([group.name for group in speakers.groups], series, "UAR", 1 / len(summary.pooled.labels)),
        table=TextTable("UAR of every speaker", ["speaker", "gender", "utterances", "UAR", "interval"], rows, words=2),
    )
    genders_too = _genders(by_gender(names, confusions, genders, seeds))
    return plot, [*_gap_of_speakers(speakers), *genders_too]


def _gap_of_speakers(speakers: Groups) -> list[str]:
    if speakers.gap is None or speakers.between is None:
        return []
    best, worst = speakers.between
    verdict = "Speakers differ." if speakers.gap.interval.low > 0 else "Chance alone may explain it."
    many = len(speakers.groups)
    allows = f", which allows for their having been picked out of {many}" if many > 2 else ""
    return [
        f"The best recognised speaker, {best}, is {_points(speakers.gap)} above the worst, {worst} "
        f"({_interval(speakers.gap.interval)}{allows}). {verdict}"
    ]


def _genders(gender: Groups) -> list[str]:
    known = [group for group in gender.groups if group.name != UNKNOWN]
    if not known:
        return ["The gender of the speakers is not known."]
    said = [
        f"{group.name.capitalize()} speakers ({group.speakers}): UAR {percent(group.uar)}, {_interval(group.interval)}."
        for group in known
    ]
    marked = [group.interval for group in known]
    if gender.gap is not None and gender.between is not None:
        p = "" if math.isnan(gender.gap.p) else f", p = {gender.gap.p:.2g}"
        names = " less ".join(gender.between).capitalize()
        said.append(f"{names}: {_points(gender.gap)} ({_interval(gender.gap.interval)}{p}).")
        marked.append(gender.gap.interval)
    return [" ".join(said), *remarks(marked)]


def _points(gap: Difference) -> str:
    return f"{100 * gap.value:.1f} points of UAR"


def _interval(interval: Interval) -> str:
    return f"no interval{'*' if interval.note else ''}" if math.isnan(interval.low) else f"interval {interval}"


def _cells(group: Group) -> list[str]:
    return [str(group.utterances), percent(group.uar), str(group.interval)]
