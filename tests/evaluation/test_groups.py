"""UAR by gender and by speaker."""

import math

import numpy as np
import pytest

from ser.evaluation.groups import by_gender, by_speaker
from ser.evaluation.statistics import group_gap, recall_interval, score_interval
from ser.runs.scores import uar

SPEAKERS = ["ann", "bob", "cat", "dan", "eve"]
GENDERS = {"ann": "female", "bob": "male", "cat": "female", "dan": "male", "eve": None}


def made(recalls, each=20, seed=0):
    """Confusion matrices of two classes, one per speaker."""
    right = np.random.default_rng(seed).binomial(each, recalls, (2, len(recalls))).T  # (S, 2)
    return np.array([[[a, each - a], [each - b, b]] for a, b in right])


def test_genders_are_scored_apart_and_held_against_each_other():
    confusions = made([0.9, 0.6, 0.8, 0.5, 0.7])
    groups = by_gender(SPEAKERS, confusions, GENDERS, runs=2)
    female, male, unknown = groups.groups
    assert [group.name for group in groups.groups] == ["female", "male", "unknown"]
    assert (female.speakers, female.utterances) == (2, 2 * 40 / 2)
    assert female.uar == pytest.approx(float(uar(confusions[0] + confusions[2])))
    assert female.interval == score_interval(confusions[[0, 2]])
    assert math.isnan(unknown.interval.low)
    assert groups.between == ("female", "male")
    assert groups.gap == group_gap(confusions[[0, 2]], confusions[[1, 3]])
    assert male.uar == pytest.approx(female.uar - groups.gap.value)


@pytest.mark.parametrize("genders", [{}, dict.fromkeys(SPEAKERS, "male")])
def test_one_gender_has_no_gap(genders):
    groups = by_gender(SPEAKERS, made([0.6] * 5), genders)
    assert len(groups.groups) == 1
    assert groups.gap is None
    assert groups.between is None


def test_speakers_come_from_the_worst_to_the_best():
    confusions = made([0.9, 0.3, 0.8, 0.5, 0.7])
    groups = by_speaker(SPEAKERS, 3 * confusions, runs=3)
    assert [group.name for group in groups.groups] == ["bob", "dan", "eve", "cat", "ann"]
    for group in groups.groups:
        own = confusions[SPEAKERS.index(group.name)]
        assert (group.speakers, group.utterances) == (1, 40)
        assert group.uar == pytest.approx(float(uar(own)))
        assert (group.interval.low, group.interval.high) == pytest.approx(
            (recall_interval(own).low, recall_interval(own).high)
        )  # three runs on the same utterances tell no more of them than one
    assert groups.between == ("ann", "bob")
    assert groups.gap.value == pytest.approx(float(uar(confusions[0]) - uar(confusions[1])))
    assert groups.gap.interval.low > 0


def test_a_gap_by_hand():
    groups = by_speaker(["a", "b"], np.array([[[8, 2], [0, 0]], [[0, 0], [5, 5]]]))
    # Wilson, z = 1.959964: of 8 of 10 0.4902 to 0.9433, of 5 of 10 0.2366 to 0.7634; a single pair needs no correction.
    assert groups.gap.value == pytest.approx(0.3)
    assert groups.gap.interval.low == pytest.approx(0.3 - math.hypot(0.8 - 0.4902, 0.7634 - 0.5), abs=1e-4)
    assert groups.gap.interval.high == pytest.approx(0.3 + math.hypot(0.9433 - 0.8, 0.5 - 0.2366), abs=1e-4)


def test_a_gap_between_the_best_and_the_worst_of_like_speakers_is_rarely_taken_for_real():
    gaps = [by_speaker(list(range(10)), made([0.7] * 10, seed=seed)).gap for seed in range(300)]
    assert np.mean([gap.value for gap in gaps]) > 0.15  # chance alone
    assert np.mean([gap.interval.low > 0 for gap in gaps]) <= 0.05


def test_one_speaker_has_no_gap():
    groups = by_speaker(["ann"], made([0.7]))
    assert len(groups.groups) == 1
    assert groups.gap is None
