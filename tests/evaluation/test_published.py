"""The papers' numbers, recomputed by our metrics from the papers' matrices."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ser.evaluation.statistics import wilson
from ser.report.papers import published
from ser.training.metrics import macro_f1, recalls, uar, wa

REPOSITORY = Path(__file__).parents[2]
SYSTEMS = [
    "acrnn",
    "cnn1d_bilstm",
    "cnn1d_lstm",
    "cnn2d_lstm",
    "cornn",
    "cornn_no_bilstm",
    "cornn_no_conformer",
    "crnn_mlflb",
    "crnn_mlflb_augmented",
    "dycnn_bilstm",
    "raw_crnn",
    "rescnn1d",
    "td_cnn2d_bilstm",
    "td_cnn2d_lstm",
]


def result(system, corpus):
    (found,) = published(system).on(corpus)
    return found


def counts(found):
    return torch.tensor(found.counts).double()


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_of_a_paper_has_its_numbers(system):
    entry = published(system)
    assert published(f"{system}_paper") is entry
    assert entry.system == system
    assert entry.paper
    assert entry.results


def test_systems_of_no_paper_have_no_numbers():
    for ours in ("my_network", "cnn_lstm", "lflb_baseline", "rescnn1d_no_residual_paper"):
        assert published(ours) is None
    assert published("cornn").on("EMO-DB") == []


@pytest.mark.parametrize(
    ("system", "corpus", "accuracy", "average"),
    [
        ("crnn_mlflb", "RAVDESS", 79.86, 79.62),
        ("crnn_mlflb_augmented", "RAVDESS", 85.76, 85.43),
        ("crnn_mlflb", "EMO-DB", 83.18, 82.98),
        ("crnn_mlflb_augmented", "EMO-DB", 91.59, 90.79),
    ],
)
def test_the_matrices_of_crnn_mlflb_give_its_scores(system, corpus, accuracy, average):
    found = result(system, corpus)
    assert (found.wa, found.uar) == (accuracy, average)
    assert counts(found).sum(dim=1).tolist() == list(found.supports)
    assert counts(found).sum() == found.utterances
    # Only one matrix of whole utterances has these percentages.
    np.testing.assert_allclose(
        100 * counts(found) / torch.tensor(found.supports)[:, None], found.confusion, atol=0.0051
    )
    assert 100 * wa(counts(found)).item() == pytest.approx(accuracy, abs=0.005)
    assert 100 * uar(counts(found)).item() == pytest.approx(average, abs=0.0051)


def test_the_macro_f1_that_the_paper_prints_twice_is_another():
    assert macro_f1(counts(result("crnn_mlflb", "RAVDESS"))).item() == pytest.approx(0.8020, abs=5e-5)
    assert macro_f1(counts(result("crnn_mlflb_augmented", "RAVDESS"))).item() == pytest.approx(0.8564, abs=5e-5)


def test_the_matrix_of_cornn_averages_to_its_63_percent_and_not_to_the_headline():
    found = result("cornn", "IEMOCAP")
    confusion = torch.tensor(found.confusion)
    assert 100 * uar(confusion).item() == pytest.approx(63.20, abs=0.005)
    assert found.uar == 65.53
    np.testing.assert_allclose(confusion.sum(dim=1), 100, atol=0.011)  # each cell is rounded
    # Pooled as the spec reconstructs it: 229 of 291, 499 of 608, 141 of 284 and 466 of 1099 utterances.
    supports = torch.tensor([291, 608, 284, 1099])
    right = (recalls(confusion) * supports).round()
    assert right.tolist() == [229, 499, 141, 466]
    assert 100 * (right.sum() / supports.sum()).item() == pytest.approx(58.5, abs=0.05)


def test_the_recalls_of_acrnn_average_to_less_than_its_headline():
    found = result("acrnn", "IEMOCAP")
    assert uar(torch.diag(torch.tensor(found.recalls)) + _rest(found.recalls)).item() == pytest.approx(0.6282, abs=6e-5)
    assert (found.uar, found.deviation) == (64.74, 5.44)


def _rest(recalls):
    """What a matrix of these recalls lacks to 100 % per row, in the next column."""
    return torch.roll(torch.diag(100 - torch.tensor(recalls)), 1, dims=1)


@pytest.mark.parametrize(
    ("system", "right", "low", "high"),
    [
        ("cnn2d_lstm", 71, 71.2, 87.6),
        ("td_cnn2d_lstm", 66, None, None),
        ("td_cnn2d_bilstm", 71, 57.0, 74.6),
        ("cnn1d_lstm", 272, None, None),
        ("cnn1d_bilstm", 275, 61.4, 70.5),
    ],
)
def test_the_accuracies_of_the_emodb_report_are_whole_numbers_of_files(system, right, low, high):
    found = result(system, "EMO-DB")
    assert round(found.wa * found.utterances / 100) == right
    assert 100 * right / found.utterances == pytest.approx(found.wa, abs=0.35)  # 62 stands for 61.68
    if low is not None:
        interval = wilson(right, found.utterances)
        assert (100 * interval.low, 100 * interval.high) == pytest.approx((low, high), abs=0.05)


@pytest.mark.parametrize(("corpus", "right", "low", "high"), [("RAVDESS", 247, 81.3, 89.3), ("EMO-DB", 98, 84.8, 95.5)])
def test_intervals_of_crnn_mlflb(corpus, right, low, high):
    found = result("crnn_mlflb_augmented", corpus)
    assert counts(found).trace() == right
    interval = wilson(right, found.utterances)
    assert (100 * interval.low, 100 * interval.high) == pytest.approx((low, high), abs=0.05)


@pytest.mark.parametrize("system", SYSTEMS)
def test_results_are_complete_and_name_what_ser_names(system):
    emotions = {"anger", "boredom", "calm", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"}
    for found in published(system).results:
        assert found.uar is not None or found.wa is not None
        assert found.protocol
        assert set(found.labels) <= emotions
        assert found.corpus in {"EMO-DB", "RAVDESS", "SAVEE", "CASIA", "IEMOCAP"}
        if found.confusion is not None:
            assert found.confusion.shape == (len(found.labels), len(found.labels))
            np.testing.assert_allclose(found.confusion.sum(axis=1), 100, atol=0.03)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs/paper").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_papers_own_configs_find_their_numbers(path):
    system = yaml.safe_load(path.read_text())["run"]["system"]
    assert published(system) is published(path.stem)
