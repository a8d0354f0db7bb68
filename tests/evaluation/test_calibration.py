"""Calibration, held against scikit-learn and cases by hand."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from ser.evaluation.calibration import calibrated, reliability, selective
from ser.runs.confidence import fit_temperature, tempered
from ser.runs.folder import Evaluation, StoredRun


def drawn(count=2000, classes=4, sharpness=1.0, seed=0):
    """Probabilities (N, K) whose targets (N,) are drawn from them, then made too sure or too unsure."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, classes))
    honest = softmax(logits, axis=1)
    targets = np.array([random.choice(classes, p=row) for row in honest])
    return softmax(sharpness * logits, axis=1), targets


# -- reliability --


def test_reliability_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.2, 0.8], [0.75, 0.25], [0.45, 0.55]])
    found = reliability(probabilities, np.array([0, 1, 1, 1, 1]))
    np.testing.assert_allclose(found.confidence, [0.55, 0.775, 0.93])  # 0.8 is in the bin from over 0.7 to 0.8
    np.testing.assert_allclose(found.accuracy, [1, 0.5, 0.5])
    assert found.count.tolist() == [1, 2, 2]
    assert found.expected_calibration_error == pytest.approx((0.45 + 2 * 0.275 + 2 * 0.43) / 5)


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_reliability_is_scikit_learns_curve_of_the_answers(bins):
    probabilities, targets = drawn(300, sharpness=3)
    right = probabilities.argmax(axis=1) == targets
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=bins, strategy="uniform")
    found = reliability(probabilities, targets, bins)
    np.testing.assert_allclose(found.accuracy, accuracy)
    np.testing.assert_allclose(found.confidence, confidence)
    assert found.count.sum() == 300


def test_certain_answers_are_in_the_last_bin():
    found = reliability(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    assert (found.confidence.tolist(), found.accuracy.tolist(), found.count.tolist()) == ([1], [0.5], [2])
    assert found.expected_calibration_error == 0.5


# -- temperature --


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_answers_too_sure(sharpness):
    probabilities, targets = drawn(20_000, sharpness=sharpness)
    temperature = fit_temperature(probabilities, targets)
    assert temperature == pytest.approx(sharpness, rel=0.05)
    mended = tempered(probabilities, temperature)
    assert reliability(mended, targets).expected_calibration_error < 0.015


def test_no_temperature_makes_the_targets_more_likely():
    probabilities, targets = drawn(200, sharpness=2)
    temperature = fit_temperature(probabilities, targets)
    least = log_loss(targets, tempered(probabilities, temperature))
    for other in (0.1, 0.95 * temperature, 0.999 * temperature, 1.001 * temperature, 1.05 * temperature, 10):
        assert least <= log_loss(targets, tempered(probabilities, other))


def test_tempering_by_hand_keeps_what_is_recognised():
    np.testing.assert_allclose(tempered(np.array([[0.8, 0.2]]), 2), [[2 / 3, 1 / 3]])
    np.testing.assert_allclose(tempered(np.array([[0.8, 0.2]]), 1), [[0.8, 0.2]])
    probabilities, _ = drawn(500)
    for temperature in (0.05, 0.7, 20):
        after = tempered(probabilities, temperature)
        np.testing.assert_allclose(after.sum(axis=1), 1)
        np.testing.assert_array_equal(after.argmax(axis=1), probabilities.argmax(axis=1))


def test_a_probability_of_0_is_no_obstacle():
    probabilities = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.3, 0.7]])
    assert 1 < fit_temperature(probabilities, np.array([0, 2, 2])) <= 20.1
    assert np.isfinite(tempered(probabilities, 2)).all()


def test_a_network_that_is_always_right_gets_the_lowest_temperature():
    assert fit_temperature(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])) == pytest.approx(0.05, rel=0.01)


def run_of(test_is_validation, validation=True):
    def evaluation(seed):
        probabilities, targets = drawn(500, sharpness=3, seed=seed)
        names = [str(i) for i in range(len(targets))]
        return Evaluation(list("abcd"), names, names, targets, probabilities)

    protocol = {"test_is_validation": test_is_validation}
    return StoredRun(Path("run"), {}, protocol, {}, evaluation(1), evaluation(2) if validation else None, [])


def test_a_run_is_calibrated_by_its_validation_side():
    run = run_of(test_is_validation=False)
    temperature, after = calibrated(run)
    assert temperature == fit_temperature(run.validation.probabilities, run.validation.targets)
    assert temperature != fit_temperature(run.test.probabilities, run.test.targets)
    before, now = (
        reliability(split.probabilities, split.targets).expected_calibration_error for split in (run.test, after)
    )
    assert now < before / 2
    assert after.confusion.tolist() == run.test.confusion.tolist()


def test_what_was_chosen_on_the_tested_utterances_is_not_calibrated():
    assert calibrated(run_of(test_is_validation=True)) is None
    assert calibrated(run_of(test_is_validation=False, validation=False)) is None


# -- refusing --


def test_refusing_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    found = selective(probabilities, np.array([0, 1, 1, 1, 0]))
    np.testing.assert_allclose(found.threshold, [0.9, 0.8, 0.7, 0.6])
    np.testing.assert_allclose(found.coverage, [0.2, 0.4, 0.6, 1])  # two answers of 0.6 are refused together
    np.testing.assert_allclose(found.wa, [1, 0.5, 2 / 3, 4 / 5])
    np.testing.assert_allclose(found.uar, [1, 0.5, 0.75, (1 + 2 / 3) / 2])


@pytest.mark.filterwarnings("ignore::UserWarning:sklearn")  # of classes that are recognised but not there
def test_scores_at_every_threshold_are_scikit_learns():
    probabilities, targets = drawn(150)
    found = selective(probabilities, targets)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    for threshold, coverage, wa, uar in zip(found.threshold, found.coverage, found.wa, found.uar, strict=True):
        kept = confidence >= threshold
        assert coverage == pytest.approx(kept.mean())
        assert wa == pytest.approx(accuracy_score(targets[kept], predicted[kept]))
        assert uar == pytest.approx(balanced_accuracy_score(targets[kept], predicted[kept]))
    assert found.coverage[-1] == 1
