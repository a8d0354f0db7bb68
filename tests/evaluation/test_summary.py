"""Summaries of made-up runs, held against scikit-learn and NumPy."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from ser.errors import UserError
from ser.evaluation.summary import speaker_confusions, summarise
from ser.evaluation.summary_table import print_summary
from ser.runs.folder import Evaluation, StoredRun

LABELS = ["anger", "joy", "calm"]
SPEAKERS = ["ann", "bob", "cat", "dan"]
PROTOCOL = {"class_path": "ser.protocols.splits.LeaveOneSpeakerOut", "init_args": {"validation_speaker": None}}


def made_run(fold, seed=1, *, count=30, labels=LABELS, absent=None, notes=(), settings=None, model=None, **changes):
    """A run whose network is right in two cases of three."""
    random = np.random.default_rng([fold, 5])  # what is tested depends on the fold alone
    targets = random.choice([i for i in range(len(labels)) if i != absent], count)
    answers = np.random.default_rng([fold, seed])
    guesses = np.where(answers.random(count) < 0.67, targets, answers.integers(0, len(labels), count))
    protocol = {
        "corpus": "Made",
        "labels": labels,
        "merge": {},
        "protocol": PROTOCOL,
        "synthetic": False,
        "fold": fold,
        "tests": SPEAKERS[fold],
        "fingerprint": f"of fold {fold}",
        "notes": list(notes),
        "genders": dict.fromkeys(SPEAKERS),
        **changes,
    }
    test = Evaluation(
        labels=labels,
        files=[f"{SPEAKERS[fold]}{i}.wav" for i in range(count)],
        speakers=[SPEAKERS[fold]] * count,
        targets=np.array(targets),
        probabilities=np.eye(len(labels))[guesses] * 0.5 + 0.1,
    )
    config = {"run": {"system": "net"}, "seed_everything": seed, **(settings or {})}
    path = Path("runs/made", f"fold{fold}-seed{seed}")
    return StoredRun(path, config, protocol, {"fit": {"epochs": 10 + fold}}, test, None, [], model or {})


def truth_and_predictions(evaluations):
    truth = np.concatenate([evaluation.targets for evaluation in evaluations])
    predicted = np.concatenate([evaluation.predicted for evaluation in evaluations])
    return truth, predicted


def scores(*runs):
    """UAR, WA and macro-F1 by scikit-learn."""
    truth, predicted = truth_and_predictions([run.test for run in runs])
    there = sorted(set(truth))
    return {
        "uar": recall_score(truth, predicted, average="macro", labels=there),
        "wa": accuracy_score(truth, predicted),
        "macro_f1": f1_score(truth, predicted, average="macro", labels=sorted({*truth, *predicted})),
    }


def test_folds_are_averaged_and_utterances_pooled():
    runs = [made_run(fold, count=20 + 10 * fold) for fold in range(4)]
    summary = summarise(runs[::-1])
    by_fold = [scores(run) for run in runs]
    for name, score in summary.scores.items():
        values = [fold[name] for fold in by_fold]
        assert score.mean == pytest.approx(np.mean(values))
        assert score.fold_deviation == pytest.approx(np.std(values, ddof=1))
        assert math.isnan(score.seed_deviation)
        assert score.pooled == pytest.approx(scores(*runs)[name])
        assert score.interval.low < score.pooled < score.interval.high
    assert [fold.number for fold in summary.folds] == [0, 1, 2, 3]
    assert [fold.tests for fold in summary.folds] == SPEAKERS
    assert [fold.epochs for fold in summary.folds] == [10, 11, 12, 13]
    truth, predicted = truth_and_predictions([run.test for run in runs])
    assert summary.pooled.confusion.tolist() == confusion_matrix(truth, predicted).tolist()
    recalls = recall_score(truth, predicted, average=None)
    for label, recall in zip(LABELS, recalls, strict=True):
        assert summary.recalls[label].value == pytest.approx(recall)
        assert summary.recalls[label].interval.low < recall < summary.recalls[label].interval.high


def test_an_emotion_that_a_fold_lacks_is_left_out_of_its_mean():
    runs = [made_run(0), made_run(1, absent=2), made_run(2)]
    summary = summarise(runs)
    lacking = summary.folds[1]
    assert lacking.means["uar"] == pytest.approx(scores(runs[1])["uar"])
    assert summary.scores["uar"].mean == pytest.approx(np.mean([scores(run)["uar"] for run in runs]))
    assert math.isnan(summary.recalls["calm"].interval.low)
    assert "not all speakers" in summary.recalls["calm"].interval.note
    assert not math.isnan(summary.recalls["joy"].interval.low)


def test_seeds_are_averaged_within_a_fold_and_vary_by_themselves():
    runs = [made_run(fold, seed) for fold in range(3) for seed in (1, 2, 3, 4)]
    summary = summarise(runs)
    table = np.array([[scores(run)["uar"] for run in runs[4 * fold : 4 * fold + 4]] for fold in range(3)])  # (3, 4)
    uar = summary.scores["uar"]
    assert uar.mean == pytest.approx(table.mean())
    assert uar.fold_deviation == pytest.approx(table.mean(axis=1).std(ddof=1))
    assert uar.seed_deviation == pytest.approx(table.mean(axis=0).std(ddof=1))
    assert [seed.number for seed in summary.seeds] == [1, 2, 3, 4]
    for number, seed in enumerate(summary.seeds):
        assert seed.means["uar"] == pytest.approx(table[:, number].mean())
        assert seed.deviations["uar"] == pytest.approx(table[:, number].std(ddof=1))
        assert seed.pooled["uar"] == pytest.approx(scores(*runs[number::4])["uar"])
    # A speaker who was tested four times is one speaker still: the interval does not shrink with the seeds.
    once = summarise(runs[::4]).scores["uar"].interval
    assert uar.interval.high - uar.interval.low > 0.5 * (once.high - once.low)


def test_a_single_fold_has_an_interval_for_its_own_speaker_only():
    summary = summarise([made_run(0)])
    assert math.isnan(summary.scores["uar"].interval.low)
    assert "one speaker" in summary.scores["uar"].interval.note
    assert math.isnan(summary.scores["uar"].fold_deviation)
    wa = summary.own_speakers["wa"]
    assert wa.low < summary.scores["wa"].pooled < wa.high
    assert summarise([made_run(0), made_run(1)]).own_speakers == {}


def test_notes_say_what_is_shared_and_what_is_missing():
    runs = [made_run(0, notes=["2 speakers are shared"]), made_run(1, notes=["2 speakers are shared"]), made_run(2)]
    runs += [made_run(0, 2, notes=["2 speakers are shared"]), made_run(1, 2, notes=["2 speakers are shared"])]
    notes = summarise(runs).notes
    assert notes == [
        "2 speakers are shared (fold 0, 1)",
        "tested on 3 of 4 speakers, without dan",
        "incomplete: no fold 2 with seed 2",
    ]
    assert summarise([made_run(fold) for fold in range(4)]).notes == []


def test_a_summary_is_plain_data_and_prints(capsys):
    summary = summarise([made_run(fold, seed, synthetic=True) for fold in range(2) for seed in (1, 2)])
    plain = json.loads(json.dumps(summary.plain(), allow_nan=False))
    assert plain["scores"]["uar"]["pooled"] == summary.scores["uar"].pooled
    assert plain["scores"]["uar"]["interval"]["high"] == summary.scores["uar"].interval.high
    assert plain["folds"][1]["means"]["wa"] == summary.folds[1].means["wa"]
    assert plain["seeds"][0]["seed"] == 1
    assert [run["run"] for run in plain["runs"]][:2] == ["fold0-seed1", "fold0-seed2"]
    assert plain["confusion"] == summary.pooled.confusion.tolist()

    print_summary(summary)
    printed = capsys.readouterr().out
    uar = summary.scores["uar"]
    for expected in (
        "seeds 1, 2",
        "Synthetic speech",
        "only 2 speakers",
        f"{100 * uar.mean:.1f} ± {100 * uar.fold_deviation:.1f}",
        f"± {100 * uar.seed_deviation:.1f}",
        f"[{100 * uar.interval.low:.1f}, {100 * uar.interval.high:.1f}]*",
        "sum of 2 seeds",
    ):
        assert expected in printed


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([made_run(1, labels=["anger", "joy", "fear"])], "differ in labels"),
        ([made_run(1, corpus="Other")], r"differ in corpus \(Made / Other\)"),
        ([made_run(1, genders=dict.fromkeys(["ann", "eve"]))], "differ in speakers"),
        ([made_run(1, found_and_published={"anger": [3, None]})], "differ in utterances"),
        (
            [
                made_run(
                    1, settings={"model": {"net": {"class_path": "ser.models.CoRNN", "init_args": {"lstm_hidden": 2}}}}
                )
            ],
            "differ in model.net",
        ),
        ([made_run(1, settings={"optimizer": {"lr": 0.1}})], r"differ in optimizer.lr \(None / 0.1\)"),
        ([made_run(1, settings={"trainer": {"limit_train_batches": 3}})], "differ in trainer.limit_train_batches"),
        ([made_run(1, settings={"data": {"sampling": "balanced"}})], "differ in data.sampling"),
        ([made_run(1, model={"checkpoint": "a.ckpt", "sha256": "ab"})], "differ in checkpoint"),
        ([made_run(0)], "both of fold 0 with seed 1"),
        ([made_run(0, 2, fingerprint="another")], "the corpus changed in between"),
    ],
)
def test_runs_that_measure_different_things_are_refused(others, message):
    with pytest.raises(UserError, match=message):
        summarise([made_run(0), *others])


def test_nothing_is_no_summary():
    with pytest.raises(UserError, match="no finished runs"):
        summarise([])


# -- what a reader has to know --


def test_folds_whose_tests_hold_other_emotions_are_named(capsys):
    runs = [made_run(0, absent=2), *(made_run(fold) for fold in (1, 2)), made_run(3, absent=0)]
    summary = summarise(runs)
    (note,) = summary.notes
    assert "fold 0 (ann) lacks calm; fold 3 (dan) lacks anger" in note
    assert "UAR and macro-F1 are over fewer emotions" in note
    assert "compare the pooled score, not the mean over folds" in note
    assert [fold["lacks"] for fold in summary.plain()["folds"]] == [["calm"], [], [], ["anger"]]
    print_summary(summary)
    assert note in capsys.readouterr().out
    everywhere = summarise([made_run(fold, absent=2) for fold in range(4)]).notes
    assert len(everywhere) == 1
    assert "mean over folds" not in everywhere[0]


def test_partly_scored_tests_are_noted():
    notes = summarise([made_run(fold, count=8, test={"utterances": 16}) for fold in range(4)]).notes
    assert notes[0] == "only part of a test set was scored: 8 of 16 utterances in fold0-seed1"
    limited = {"trainer": {"limit_train_batches": 1, "limit_val_batches": 1.0, "overfit_batches": 0.0}}
    notes = summarise([made_run(fold, settings=limited) for fold in range(4)]).notes
    assert notes == ["only part of a split was used in training: limit_train_batches is 1"]


FOREIGN = {
    "checkpoint": "runs/a/fold0-seed1/checkpoints/best.ckpt",
    "sha256": "0123456789abcdef",
    "system": "theirs",
    "trained_on": [
        {"corpus": "Elsewhere", "synthetic": True, "fold": 3, "speakers": {"train": ["zoe", "yan"], "val": ["xia"]}},
        {"corpus": "There", "synthetic": False, "fold": 0, "speakers": {"train": ["wim"], "val": ["vic"]}},
    ],
}


def test_a_tested_checkpoint_is_named_with_what_it_was_trained_on(capsys):
    summary = summarise([made_run(fold, model=FOREIGN) for fold in range(4)])
    (note,) = summary.notes
    assert note == (
        "trained on Elsewhere (synthetic speech) fold 3 (speakers yan, zoe; selected on xia), then on There fold 0 "
        "(speakers wim; selected on vic), tested on Made (speakers ann, bob, cat, dan): checkpoint "
        "runs/a/fold0-seed1/checkpoints/best.ckpt, SHA-256 0123456789ab, system theirs"
    )
    assert summary.system == "theirs"
    assert summary.plain()["runs"][0]["model"] == FOREIGN
    print_summary(summary)
    printed = capsys.readouterr().out
    assert note in printed
    assert "seed" not in printed.splitlines()[0]


def test_the_tables_fit_80_columns_whatever_the_names(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    seven = ["anger", "boredom", "disgust", "fear", "happiness", "neutral", "sadness"]
    odd = ["[/01]", "[x]", "a very long name of an emotion", "frustration", "happiness", ":smile:", "surprise", "fear"]
    numbered = [f"emotion of class {number:02}" for number in range(9)]
    for labels in (seven, [*odd, "disgust", "other"], [*numbered, "愤怒"]):
        summary = summarise([made_run(fold, seed, labels=labels, count=120) for fold in range(4) for seed in (1, 2)])
        print_summary(summary)
        printed = capsys.readouterr().out
        tables = printed[: printed.index("Rows are the truth")].splitlines()
        assert max(map(len, tables)) <= 80
        assert "…" not in printed
        for interval in [score.interval for score in summary.scores.values()]:
            assert any(str(interval) in line for line in tables)  # in one line
        for label, recall in summary.recalls.items():
            assert any(line.startswith(label) and str(recall.interval) in line for line in tables)
            assert printed.count(label) >= 2  # in its row, and as its column or what that stands for
        for label, counts in zip(labels, summary.pooled.confusion.tolist(), strict=True):
            assert any(line.removeprefix(label).split()[: len(labels)] == list(map(str, counts)) for line in tables)


def test_predictions_of_several_runs_are_summed_by_speaker():
    def evaluated(speakers, targets, predicted):
        probabilities = np.eye(2)[predicted]
        return Evaluation(["a", "b"], [""] * len(speakers), speakers, np.array(targets), probabilities)

    speakers, confusions = speaker_confusions(
        [evaluated(["eve", "bob", "eve"], [0, 1, 1], [0, 0, 1]), evaluated(["bob", "ann"], [1, 0], [1, 1])]
    )
    assert speakers == ["ann", "bob", "eve"]
    assert confusions.tolist() == [[[0, 1], [0, 0]], [[0, 0], [1, 1]], [[1, 0], [0, 1]]]
