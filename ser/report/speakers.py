"""The report's scores by speaker and by gender."""

import math

from ser.evaluation.groups import UNKNOWN, Groups, by_gender, by_speaker
from ser.evaluation.statistics import Difference, Interval, p_value, remarks
from ser.evaluation.summary import Summary, speaker_confusions
from ser.report.parts import Plot, TextTable, point
from ser.report.plots import Point, dots_figure
from ser.runs.scores import percent, points


def speakers_plot(id: str, summary: Summary) -> tuple[Plot, list[str]]:
    """Return the UAR of every speaker, the worst first, and the gaps between speakers and between genders."""
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
    rows = [
        [group.name, gender_of[group.name], str(group.utterances), percent(group.uar), str(group.interval)]
        for group in speakers.groups
    ]
    plot = Plot(
        id=id,
        description=f"UAR of every speaker, the worst first, with its {speakers.groups[0].interval.name} for unseen "
        "utterances of the same speaker.",
        figure=dots_figure([group.name for group in speakers.groups], series, "UAR", 1 / len(summary.pooled.labels)),
        table=TextTable("UAR of every speaker", ["speaker", "gender", "utterances", "UAR", "interval"], rows, words=2),
    )
    genders_too = _genders(by_gender(names, confusions, genders, seeds))
    return plot, [*_gap_of_speakers(speakers), *genders_too]


def _gap_of_speakers(speakers: Groups) -> list[str]:
    if speakers.gap is None or speakers.between is None:
        return []
    best, worst = speakers.between
    verdict = "significant" if speakers.gap.interval.low > 0 else "not significant"
    many = len(speakers.groups)
    corrected = f", corrected for the choice among {many} speakers" if many > 2 else ""
    return [
        f"The best speaker, {best}, is {_gap(speakers.gap)} above the worst, {worst} "
        f"({_interval(speakers.gap.interval)}{corrected}): {verdict}."
    ]


def _genders(gender: Groups) -> list[str]:
    known = [group for group in gender.groups if group.name != UNKNOWN]
    if not known:
        return ["The gender of the speakers is unknown."]
    sentences = [
        f"{group.name.capitalize()} speakers ({group.speakers}): UAR {percent(group.uar)}, {_interval(group.interval)}."
        for group in known
    ]
    marked = [group.interval for group in known]
    if gender.gap is not None and gender.between is not None:
        p = "" if math.isnan(gender.gap.p) else f", {p_value(gender.gap.p, 'p')}"
        names = " less ".join(gender.between).capitalize()
        sentences.append(f"{names}: {_gap(gender.gap)} ({_interval(gender.gap.interval)}{p}).")
        marked.append(gender.gap.interval)
    return [" ".join(sentences), *remarks(marked)]


def _gap(gap: Difference) -> str:
    return f"{points(gap.value)} points of UAR"


def _interval(interval: Interval) -> str:
    return f"no interval{'*' if interval.note else ''}" if math.isnan(interval.low) else f"interval {interval}"
