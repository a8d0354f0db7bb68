import math

import numpy as np
import pytest
import torch
import torch.distributed
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score
from torch.multiprocessing import get_context

from ser import metrics
from ser.metrics import MacroF1, emotion_metrics, macro_f1, recalls, uar, wa

CLASSES = 4
LABELS = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=40)


def references(targets, predicted):
    with np.errstate(all="ignore"):
        return {
            "uar": recall_score(targets, predicted, labels=sorted(set(targets)), average="macro", zero_division=0),
            "wa": accuracy_score(targets, predicted),
            "macro_f1": f1_score(targets, predicted, average="macro", zero_division=0),
        }


@given(LABELS)
@pytest.mark.filterwarnings("ignore::UserWarning:sklearn")  # of absent classes, which are the point
def test_scores_are_scikit_learns_whichever_classes_occur(pairs):
    targets, predicted = map(list, zip(*pairs, strict=True))
    confusion = metrics.confusion_matrix(torch.tensor(targets), torch.tensor(predicted), CLASSES)
    np.testing.assert_array_equal(confusion, confusion_matrix(targets, predicted, labels=range(CLASSES)))
    expected = references(targets, predicted)
    assert uar(confusion).item() == pytest.approx(expected["uar"], abs=1e-6)
    assert uar(confusion).item() == pytest.approx(balanced_accuracy_score(targets, predicted), abs=1e-6)
    assert wa(confusion).item() == pytest.approx(expected["wa"], abs=1e-6)
    assert macro_f1(confusion).item() == pytest.approx(expected["macro_f1"], abs=1e-6)
    collection = emotion_metrics(CLASSES)
    collection.update(torch.tensor(predicted), torch.tensor(targets))
    assert {name: score.item() for name, score in collection.compute().items()} == pytest.approx(expected, abs=1e-6)


def test_a_class_without_a_true_utterance_does_not_count_even_when_it_is_recognised():
    confusion = torch.tensor([[3, 0, 1], [0, 2, 2], [0, 0, 0]])
    assert recalls(confusion).tolist()[:2] == [0.75, 0.5]
    assert math.isnan(recalls(confusion)[2])
    assert uar(confusion).item() == pytest.approx((0.75 + 0.5) / 2)
    assert wa(confusion).item() == pytest.approx(5 / 8)
    assert macro_f1(confusion).item() == pytest.approx((6 / 7 + 4 / 6 + 0) / 3)


def test_scores_accumulate_over_batches_and_start_anew_after_a_reset():
    rng = torch.Generator().manual_seed(1)
    collection = emotion_metrics(CLASSES, "val/").clone()
    for _ in range(2):
        targets = torch.randint(CLASSES, (50,), generator=rng)
        logits = torch.randn(50, CLASSES, generator=rng)
        for part in (slice(0, 7), slice(7, 8), slice(8, 50)):
            collection.update(logits[part].softmax(dim=-1), targets[part])
        scores = {name: score.item() for name, score in collection.compute().items()}
        expected = references(targets.tolist(), logits.argmax(dim=-1).tolist())
        assert scores == pytest.approx({f"val/{name}": score for name, score in expected.items()}, abs=1e-6)
        collection.reset()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_scores_of_any_precision(dtype):
    probabilities = torch.tensor([[0.75, 0.25], [0.125, 0.875], [0.625, 0.375]], dtype=dtype)
    metric = MacroF1(2)
    metric.update(probabilities, torch.tensor([0, 1, 1]))
    assert metric.confmat.tolist() == [[1, 0], [1, 1]]
    assert metric.compute().item() == pytest.approx((2 / 3 + 2 / 3) / 2)


# -- published matrices --


def test_confusion_of_cornn_averages_to_its_63_percent_and_not_to_the_headline():
    # Rows and columns angry, sad, happy, neutral, in percent; each row as of 10,000 utterances.
    percent = [
        [78.69, 1.37, 10.31, 9.62],
        [4.61, 82.07, 4.44, 8.88],
        [21.83, 8.45, 49.65, 20.07],
        [17.47, 17.93, 22.20, 42.40],
    ]
    confusion = (torch.tensor(percent) * 100).round().long()
    assert 100 * uar(confusion).item() == pytest.approx(63.20, abs=0.02)
    assert 100 * macro_recall_of_acrnn().item() == pytest.approx(62.82, abs=0.02)


def macro_recall_of_acrnn():
    return uar(published([10_000] * 4, [70.47, 84.32, 29.95, 66.52]))


def published(supports, recalls_percent):
    """Return a confusion matrix of these supports and recalls; all errors go to the next class."""
    confusion = torch.zeros(len(supports), len(supports), dtype=torch.long)
    for row, (support, recall) in enumerate(zip(supports, recalls_percent, strict=True)):
        confusion[row, row] = round(support * recall / 100)
        confusion[row, (row + 1) % len(supports)] = support - confusion[row, row]
    return confusion


@pytest.mark.parametrize(
    ("supports", "recalls_percent", "accuracy", "average"),
    [
        ([37, 36, 41, 41, 40, 24, 34, 35], [94.59, 91.67, 75.61, 80.49, 67.50, 70.83, 70.59, 85.71], 79.86, 79.62),
        ([37, 36, 41, 41, 40, 24, 34, 35], [97.30, 88.89, 95.12, 70.73, 82.50, 75.00, 85.29, 88.57], 85.76, 85.43),
        ([34, 10, 10, 12, 13, 17, 11], [85.29, 80, 80, 91.67, 61.54, 82.35, 100], 83.18, 82.98),
        ([34, 10, 10, 12, 13, 17, 11], [97.06, 90, 100, 83.33, 76.92, 88.24, 100], 91.59, 90.79),
    ],
)
def test_scores_of_the_published_matrices_of_crnn_mlflb(supports, recalls_percent, accuracy, average):
    confusion = published(supports, recalls_percent)
    assert 100 * wa(confusion).item() == pytest.approx(accuracy, abs=0.005)
    assert 100 * uar(confusion).item() == pytest.approx(average, abs=0.006)


# -- several processes --


def _score(rank, address, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{address}", rank=rank, world_size=2)
    targets, predicted = SHARES[rank]
    collection = emotion_metrics(CLASSES)
    for target, recognised in zip(targets, predicted, strict=True):
        collection.update(torch.tensor([recognised]), torch.tensor([target]))
    results.put((rank, {name: score.item() for name, score in collection.compute().items()}))
    torch.distributed.destroy_process_group()


SHARES = [([0, 0, 1, 2, 2], [0, 1, 1, 2, 3]), ([0, 1, 1], [0, 2, 1])]  # of unequal size, and class 3 is absent


def test_scores_count_the_utterances_of_all_processes_once(tmp_path):
    context = get_context("spawn")  # a fork of a process that has computed with torch may hang
    results = context.SimpleQueue()
    workers = [context.Process(target=_score, args=(rank, tmp_path / "store", results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    scores = dict(results.get() for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    expected = references([*SHARES[0][0], *SHARES[1][0]], [*SHARES[0][1], *SHARES[1][1]])
    assert scores[0] == scores[1] == pytest.approx(expected, abs=1e-6)
