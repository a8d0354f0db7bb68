import math

import numpy as np
import pytest
import torch
import torch.distributed
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score, recall_score

from ser.runs import scores
from ser.training.metrics import MacroF1, emotion_metrics, macro_f1, recalls, uar, wa

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
    confusion = torch.from_numpy(scores.confusion_matrix(np.array(targets), np.array(predicted), CLASSES))
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


def test_scores_count_the_utterances_of_all_processes_once(tmp_path, starting):
    results = starting.SimpleQueue()
    workers = [starting.Process(target=_score, args=(rank, tmp_path / "store", results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    scores = dict(results.get() for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    expected = references([*SHARES[0][0], *SHARES[1][0]], [*SHARES[0][1], *SHARES[1][1]])
    assert scores[0] == scores[1] == pytest.approx(expected, abs=1e-6)
