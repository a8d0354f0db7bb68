"""The scores of run folders, held against scikit-learn and those that training logs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from ser.runs import scores
from ser.training import metrics

CLASSES = 4
LABELS = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=40)
NAMES = ["recalls", "uar", "wa", "macro_f1"]


@given(LABELS)
@pytest.mark.filterwarnings("ignore::UserWarning:sklearn")  # of absent classes, which are the point
def test_scores_are_scikit_learns_and_those_of_training(pairs):
    targets, predicted = np.array(pairs).T
    confusion = scores.confusion_matrix(targets, predicted, CLASSES)
    np.testing.assert_array_equal(confusion, confusion_matrix(targets, predicted, labels=range(CLASSES)))
    assert scores.uar(confusion) == pytest.approx(balanced_accuracy_score(targets, predicted))
    assert scores.wa(confusion) == pytest.approx(accuracy_score(targets, predicted))
    assert scores.macro_f1(confusion) == pytest.approx(f1_score(targets, predicted, average="macro", zero_division=0))
    assert np.isnan(scores.recalls(confusion)).tolist() == [number not in targets for number in range(CLASSES)]
    for name in NAMES:
        logged = getattr(metrics, name)(torch.from_numpy(confusion).double())
        np.testing.assert_allclose(getattr(scores, name)(confusion), logged.numpy())


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_many_matrices_are_those_of_each(name):
    confusions = np.random.default_rng(1).integers(0, 3, (2, 30, 4, 4))
    confusions[0, :10, 2] = 0  # a class without a true utterance
    confusions[0, :5, :, 2] = 0  # and never recognised
    confusions[0, 0] = 0  # nothing at all
    together = getattr(scores, name)(confusions)
    for where in np.ndindex(confusions.shape[:2]):
        np.testing.assert_allclose(together[where], getattr(scores, name)(confusions[where]))
        np.testing.assert_allclose(together[where], getattr(scores, name)(confusions[where] / 3))  # a mean of runs
