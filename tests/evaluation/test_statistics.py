"""Intervals and tests, held against SciPy, statsmodels, and a simulation that knows the truth."""

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from ser.evaluation.statistics import (
    FEW_SPEAKERS,
    Interval,
    group_gap,
    holm,
    mean_and_std,
    paired_difference,
    plain,
    recall_interval,
    score_interval,
    sign_test,
    wilson,
)
from ser.runs.scores import macro_f1, uar, wa

COVERAGE = Path(__file__).parents[2] / "benchmarks/interval_coverage.py"


def made(speakers, seed=0, *, classes=4, each=20, recall=0.6):
    """Confusion matrices of speakers with as many utterances each, some of them easier, (S, K, K)."""
    random = np.random.default_rng(seed)
    rates = np.clip(random.normal(recall, 0.1, (speakers, classes)), 0.05, 0.95)
    errors = (1 - np.eye(classes)) / (classes - 1)
    predicted = rates[..., None] * np.eye(classes) + (1 - rates[..., None]) * errors
    return random.multinomial(np.full((speakers, classes), each), predicted)


def bounds(interval):
    return interval.low, interval.high


# -- intervals on the split's own speakers --


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("correct", "total"), [(0, 5), (5, 5), (1, 2), (71, 88), (307, 561)])
def test_wilson_is_scipys_and_statsmodels(correct, total, level):
    interval = wilson(correct, total, level)
    expected = stats.binomtest(correct, total).proportion_ci(level, method="wilson")
    assert bounds(interval) == pytest.approx((expected.low, expected.high))
    assert bounds(interval) == pytest.approx(proportion_confint(correct, total, 1 - level, method="wilson"))
    assert interval.note == ""


def test_wilson_of_nothing_is_no_interval():
    assert math.isnan(wilson(0, 0).low)
    assert wilson(0, 0).note == "no utterances"


def test_an_interval_of_one_classs_recall_is_wilsons():
    assert bounds(recall_interval(np.array([[7, 3], [0, 0]]))) == pytest.approx(bounds(wilson(7, 10)))


def test_an_interval_of_the_mean_of_recalls_adds_their_distances_in_squares():
    # Wilson by hand, z = 1.959964: of 8 of 10 0.4902 to 0.9433, of 5 of 10 0.2366 to 0.7634.
    interval = recall_interval(np.array([[8, 2], [5, 5]]))
    assert interval.low == pytest.approx(0.65 - math.hypot(0.8 - 0.4902, 0.5 - 0.2366) / 2, abs=1e-4)
    assert interval.high == pytest.approx(0.65 + math.hypot(0.9433 - 0.8, 0.7634 - 0.5) / 2, abs=1e-4)


def test_an_interval_of_the_mean_of_recalls_holds_it_as_often_as_it_says():
    random = np.random.default_rng(3)
    recalls, support = np.array([0.95, 0.8, 0.6, 0.4]), np.array([6, 10, 8, 14])
    repetitions = 2000
    held = 0
    for hits in random.binomial(support, recalls, (repetitions, 4)):
        low, high = bounds(recall_interval(np.diag(hits) + np.roll(np.diag(support - hits), 1, axis=1)))
        held += low <= recalls.mean() <= high
    assert 0.94 <= held / repetitions <= 0.98


# -- intervals for unseen speakers --


@pytest.mark.parametrize("score", [uar, wa, macro_f1])
def test_the_standard_error_is_that_of_scipys_bootstrap(score):
    confusions = made(12)
    reference = stats.bootstrap(
        (np.arange(12),),
        lambda drawn, axis: score(confusions[drawn].sum(axis=-3)),
        n_resamples=20_000,
        vectorized=True,
        method="percentile",
        rng=1,
    )
    value = score(confusions.sum(axis=0))
    half = stats.t.ppf(0.975, 11) * reference.standard_error * math.sqrt(12 / 11) / (value * (1 - value))
    expected = expit([logit(value) - half, logit(value) + half])
    np.testing.assert_allclose(bounds(score_interval(confusions, score, resamples=20_000)), expected, atol=0.003)


def test_an_interval_is_the_same_every_time_and_depends_on_the_level():
    confusions = made(10)
    assert score_interval(confusions) == score_interval(confusions)
    assert score_interval(confusions, seed=1) != score_interval(confusions)
    wide, narrow = (score_interval(confusions, level=level) for level in (0.99, 0.8))
    assert wide.low < narrow.low < uar(confusions.sum(axis=0)) < narrow.high < wide.high
    assert (wide.level, narrow.level) == (0.99, 0.8)


def test_several_runs_added_up_or_averaged_have_the_same_interval():
    confusions = made(10)
    assert bounds(score_interval(confusions / 5)) == pytest.approx(bounds(score_interval(confusions)))


def test_an_interval_stays_within_0_and_1():
    nearly = np.tile(np.diag([20, 20]), (9, 1, 1))
    nearly[0] = [[18, 2], [0, 20]]
    interval = score_interval(nearly)
    assert 0 < interval.low < uar(nearly.sum(axis=0)) < interval.high < 1


@pytest.mark.parametrize("speakers", [2, FEW_SPEAKERS - 1])
def test_few_speakers_are_noted(speakers):
    interval = score_interval(made(speakers))
    assert f"only {speakers} speakers" in interval.note
    assert interval.low < interval.high
    assert paired_difference(made(speakers), made(speakers, 1)).interval.note == interval.note
    assert group_gap(made(20), made(speakers)).interval.note == interval.note


def test_enough_speakers_need_no_note():
    assert score_interval(made(FEW_SPEAKERS)).note == ""
    assert paired_difference(made(FEW_SPEAKERS), made(FEW_SPEAKERS, 1)).interval.note == ""


@pytest.mark.parametrize("speakers", [0, 1])
def test_one_speaker_says_nothing_of_others(speakers):
    for interval in (
        score_interval(made(speakers)),
        paired_difference(made(speakers), made(speakers)).interval,
        group_gap(made(5), made(speakers)).interval,
    ):
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
        assert "one speaker" in interval.note or "no speaker" in interval.note
    assert math.isnan(paired_difference(made(speakers), made(speakers)).p)


def test_speakers_who_are_all_recognised_alike_give_no_interval():
    perfect = np.tile(np.diag([5, 5]), (10, 1, 1))
    assert score_interval(perfect).note == "the score does not vary between the 10 speakers"
    assert math.isnan(score_interval(perfect).low)
    worse = np.tile([[4, 1], [0, 5]], (10, 1, 1))
    assert "does not vary" in paired_difference(perfect, worse).interval.note
    assert math.isnan(paired_difference(perfect, worse).p)


def test_an_interval_prints_its_note_as_a_star():
    assert str(Interval(0.5012, 0.7)) == "[50.1, 70.0]"
    assert str(Interval(-0.05, 0.7, note="few")) == "[-5.0, 70.0]*"
    assert str(Interval.none(0.95, "few")) == "–*"
    expected = {"low": None, "high": None, "level": 0.95, "note": "few"}
    assert json.loads(json.dumps(plain(Interval.none(0.95, "few")), allow_nan=False)) == expected


# -- differences --


def test_a_difference_of_accuracies_is_the_paired_t_test_of_the_speakers():
    ours, theirs = made(10, 1, recall=0.65), made(10, 2)
    difference = paired_difference(ours, theirs, wa, resamples=50_000)
    expected = stats.ttest_rel(wa(ours), wa(theirs))  # of equally many utterances each, the pooled accuracy is the mean
    assert difference.value == pytest.approx((wa(ours) - wa(theirs)).mean())
    assert difference.p == pytest.approx(expected.pvalue, rel=0.05)
    assert bounds(difference.interval) == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=0.002)


def test_a_gap_of_accuracies_is_welchs_t_test_of_the_speakers():
    ones, others = made(9, 1, recall=0.65), made(14, 2, each=30)
    gap = group_gap(ones, others, wa, resamples=50_000)
    expected = stats.ttest_ind(wa(ones), wa(others), equal_var=False)
    assert gap.value == pytest.approx(wa(ones).mean() - wa(others).mean())
    assert gap.p == pytest.approx(expected.pvalue, rel=0.05)
    assert bounds(gap.interval) == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=0.002)


def test_a_difference_turns_its_sign_with_the_order():
    ours, theirs = made(10, 1), made(10, 2)
    one, other = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert one.value == pytest.approx(uar(ours.sum(axis=0)) - uar(theirs.sum(axis=0)))
    assert (one.value, one.p) == pytest.approx((-other.value, other.p))
    assert bounds(one.interval) == pytest.approx((-other.interval.high, -other.interval.low))


def test_pairing_makes_a_difference_between_like_systems_sharper():
    ours = made(12, 1)
    theirs = ours.copy()
    theirs[:, 0, 0] -= 1
    theirs[::2, 0, 1] += 1
    theirs[1::2, 0, 2] += 1
    theirs[0], theirs[1] = ours[0], ours[1]  # two speakers without a difference
    assert paired_difference(ours, theirs).p < 0.001 < 0.5 < group_gap(ours, theirs).p


def test_the_same_predictions_do_not_differ():
    same = paired_difference(made(10), made(10))
    assert (same.value, same.p, bounds(same.interval)) == (0, 1, (0, 0))


# -- tests --


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_is_statsmodels(seed):
    random = np.random.default_rng(seed)
    targets = random.integers(0, 4, 80)
    ours, theirs = (np.where(random.random(80) < rate, targets, (targets + 1) % 4) for rate in (0.8, 0.6))
    table = [
        [
            np.sum((ours == targets) == a) and np.sum(((ours == targets) == a) & ((theirs == targets) == b))
            for b in (True, False)
        ]
        for a in (True, False)
    ]
    assert sign_test(ours == targets, theirs == targets) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


def test_mcnemar_by_hand():
    targets = np.zeros(10, dtype=int)
    ours, theirs = targets.copy(), targets.copy()
    theirs[:5] = 1  # 5 to 0: 2 / 2 ** 5
    assert sign_test(ours == targets, theirs == targets) == pytest.approx(2 / 32)
    assert sign_test(ours == targets, ours == targets) == 1
    ours[9] = 2  # 5 to 1: 2 (1 + 6) / 2 ** 6
    assert sign_test(ours == targets, theirs == targets) == pytest.approx(14 / 64)


def test_the_sign_test_counts_an_utterance_once_however_many_seeds_recognised_it():
    ours, theirs = np.array([3, 3, 2, 3, 1, 0, 2]), np.array([0, 2, 1, 1, 0, 0, 2])
    assert sign_test(ours, theirs) == pytest.approx(stats.binomtest(5, 5).pvalue)


@pytest.mark.parametrize("seed", range(3))
def test_holm_is_statsmodels(seed):
    p_values = np.random.default_rng(seed).random(7) ** 3
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1])


def test_holm_leaves_out_a_test_that_was_not_made():
    np.testing.assert_allclose(holm([0.03, math.nan, 0.01]), [0.03, math.nan, 0.02])
    assert holm([]).tolist() == []


def test_mean_and_standard_deviation_of_a_sample():
    assert mean_and_std([1, 2, 3, 6]) == pytest.approx((3, np.sqrt(14 / 3)))
    assert mean_and_std([0.5])[0] == 0.5
    assert math.isnan(mean_and_std([0.5])[1])


# -- coverage --


@pytest.mark.slow
@pytest.mark.parametrize("population", ["like EMO-DB", "nearly solved"])
def test_intervals_hold_the_truth_as_often_as_they_say(population):
    simulation = runpy.run_path(str(COVERAGE))
    shares = simulation["coverage"](simulation["POPULATIONS"][population], 24, 400, percentile=False)
    for interval in ("score", "difference", "gap"):
        assert shares[interval] >= 0.93, interval
    assert shares["false alarms"] <= 0.08  # three standard errors over 0.05
    assert shares["width"] <= 0.12  # not by being wide


@pytest.mark.slow
def test_four_speakers_are_where_a_percentile_bootstrap_fails():
    simulation = runpy.run_path(str(COVERAGE))
    shares = simulation["coverage"](simulation["POPULATIONS"]["like RAVDESS"], 4, 300)
    assert shares["score"] >= 0.93
    assert shares["percentile"] <= 0.87
