"""``ser compare`` on run folders that are written here as a fit writes them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from ser.cli import main
from ser.errors import UserError
from ser.evaluation.compare import compare
from ser.evaluation.statistics import paired_difference
from ser.runs.folder import find_runs
from ser.runs.scores import uar

CONFIG = Path(__file__).parents[2] / "configs/cornn.yaml"
RUNS = Path("runs")
GENDERS = dict.fromkeys([f"s{i:02}" for i in range(10)], "female")
GOOD, BAD = 3.0, 0.5  # skill of a network


@pytest.fixture
def write(write_run, tmp_path, monkeypatch):
    """Return a function that writes experiments below the working folder, tested on 9 of 10 speakers."""
    monkeypatch.chdir(tmp_path)

    def write(experiment, folds=range(9), seeds=(1,), **options):
        for fold in folds:
            for seed in seeds:
                write_run(experiment, fold, seed, **{"genders": GENDERS, "count": 20, "skill": 1.0, **options})

    return write


def compared(*names):
    return compare({name: find_runs(RUNS / name) for name in names})


def confusions(name):
    """One matrix per speaker: a fold tests one."""
    return np.array([run.test.confusion for run in find_runs(RUNS / name)])


# -- what is computed --


def test_two_experiments_are_paired_by_utterance(write):
    write("good", skill=GOOD)
    write("bad", skill=BAD)
    comparison = compared("bad", "good")
    contrast = comparison.contrasts["good"]

    assert contrast.difference == paired_difference(confusions("good"), confusions("bad"))
    pooled = {name: uar(confusions(name).sum(axis=0)) for name in ("good", "bad")}
    assert contrast.difference.value == pytest.approx(float(pooled["good"] - pooled["bad"]))
    assert contrast.adjusted_p == contrast.difference.p < 0.01
    for name, expected in pooled.items():
        assert comparison.summaries[name].scores["uar"].pooled == pytest.approx(float(expected))

    right = {name: recognised(name) for name in ("good", "bad")}
    table = [[np.sum((right["good"] == a) & (right["bad"] == b)) for b in (True, False)] for a in (True, False)]
    assert contrast.mcnemar_p == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


def recognised(name):
    tests = [run.test for run in find_runs(RUNS / name)]
    return np.concatenate([test.predicted == test.targets for test in tests])


def test_the_order_of_rows_does_not_matter(write):
    write("one", skill=GOOD)
    write("other")
    expected = compared("one", "other").contrasts
    for path in RUNS.glob("other/*/predictions.csv"):
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([header, *rows[::-1]]))
    assert compared("one", "other").contrasts == expected


def test_more_than_two_are_corrected_after_holm(write):
    for name, skill in {"a": 0.6, "b": 0.9, "c": 2, "d": 0.7}.items():
        write(name, skill=skill)
    contrasts = compared("a", "b", "c", "d").contrasts
    assert list(contrasts) == ["b", "c", "d"]
    for found, adjusted in (
        ([c.difference.p for c in contrasts.values()], [c.adjusted_p for c in contrasts.values()]),
        ([c.mcnemar_p for c in contrasts.values()], [c.adjusted_mcnemar_p for c in contrasts.values()]),
    ):
        np.testing.assert_allclose(adjusted, multipletests(found, method="holm")[1])
        assert adjusted != found


def test_an_utterance_counts_once_however_many_seeds_tested_it(write):
    write("one", skill=GOOD)
    write("other")
    once = compared("one", "other").contrasts["other"]
    write("one", seeds=(2, 3), skill=GOOD)  # that say the same
    write("other", seeds=(2, 3))
    thrice = compared("one", "other").contrasts["other"]
    assert thrice.mcnemar_p == once.mcnemar_p
    assert thrice.difference.value == pytest.approx(once.difference.value)
    assert thrice.difference.p == pytest.approx(once.difference.p)


def test_only_seeds_that_all_have_are_compared(write):
    write("one", seeds=(1, 2, 3))
    write("other", seeds=(2, 3, 4))
    comparison = compared("one", "other")
    for summary in comparison.summaries.values():
        assert {run.seed for run in summary.runs} == {2, 3}
        assert len(summary.runs) == 18
    left_out = [note for note in comparison.notes if "left out" in note]
    assert len(left_out) == 18
    assert "runs/one/fold0-seed1 is left out: not all experiments have its fold and seed." in left_out
    assert "runs/other/fold8-seed4 is left out: not all experiments have its fold and seed." in left_out


def test_runs_of_other_seeds_are_compared_as_they_are(write):
    write("one", folds=[3], seeds=(1,))
    write("other", folds=[3], seeds=(2,))
    comparison = compared("one", "other")
    assert [len(summary.runs) for summary in comparison.summaries.values()] == [1, 1]
    assert comparison.contrasts["other"].difference.interval.note == "no interval for unseen speakers from one speaker"
    assert not [note for note in comparison.notes if "left out" in note]


def test_tests_and_unfinished_runs_beside_the_fits_are_not_looked_at(write):
    for name in ("one", "other"):
        write(name, folds=range(3))
    write("one", folds=[0], name="test-fold0-seed1", skill=BAD)
    (RUNS / "one/test-fold0-seed1/history.csv").unlink()
    write("one", folds=[4])
    (RUNS / "one/fold4-seed1/predictions.csv").unlink()
    assert [run.path.name for run in find_runs(RUNS / "one")] == ["fold0-seed1", "fold1-seed1", "fold2-seed1"]
    assert compared("one", "other").contrasts["other"].difference.value == 0


def test_what_all_or_some_note_is_passed_on(write):
    shared = "Speakers are shared, as the protocol allows."
    write("one", notes=[shared], synthetic=True)
    write("other", notes=[shared], synthetic=True, seeds=(1,))
    notes = compared("one", "other").notes
    assert shared in notes
    assert any("Synthetic speech" in note for note in notes)
    write("third", notes=["A file is in two splits."])
    assert "third: A file is in two splits." in compared("one", "third").notes


# -- what is refused --

SPLITS = {"train": {"files": ["a", "b"]}, "val": {"files": ["c"]}, "test": {"files": ["d"]}}
DIFFERENCES = {
    "corpus": ({"corpus": "Other"}, "their corpora differ, Made / Other"),
    "emotions": (
        {"labels": ["anger", "sadness"]},
        "their emotions differ, anger, sadness, happiness, neutral / anger, sadness",
    ),
    "merged": ({"merge": {"excited": "joy"}}, "their merged emotions differ, none / excited: joy"),
    "protocol": (
        {"protocol": {"class_path": "ser.protocols.kfold.SpeakerKFold", "init_args": {"k": 5}}},
        "their protocols differ, LeaveOneSpeakerOut / SpeakerKFold (k=5)",
    ),
    "files": (
        {"train": {"files": ["a"]}, "val": {"files": ["c", "e", "f"]}},
        "their fold 0 differs, in files: 1 only in the first (such as b) and 2 only in the second (such as e)",
    ),
    "split": (
        {"train": {"files": ["a", "c"]}, "val": {"files": ["b"]}},
        "their fold 0 differs, in how the same files are divided into train and val",
    ),
    "recordings": ({}, "their fold 0 differs, in recordings or emotions of files of the same names"),
}


@pytest.mark.parametrize(("changes", "message"), DIFFERENCES.values(), ids=DIFFERENCES.keys())
def test_experiments_of_different_data_are_refused_saying_how(write, changes, message):
    write("one", folds=[0], **SPLITS)
    write("other", folds=[0], fingerprint="another", **{**SPLITS, **changes})
    with pytest.raises(UserError, match="one and other were not tested on the same data") as refusal:
        compared("one", "other")
    assert message in str(refusal.value)


def test_other_folds_are_refused(write):
    write("one", folds=range(4))
    write("other", folds=[0, 2])
    with pytest.raises(UserError, match="their folds differ, 0, 1, 2, 3 / 0, 2"):
        compared("one", "other")


def test_predictions_of_a_part_of_the_test_split_are_refused(write):
    write("one", folds=[0])
    write("other", folds=[0])
    predictions = RUNS / "other/fold0-seed1/predictions.csv"
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:-3]))
    with pytest.raises(UserError, match="limit_test_batches"):
        compared("one", "other")


def test_two_runs_of_a_fold_and_seed_in_one_experiment_are_refused(write):
    write("one", folds=range(2))
    write("other", folds=range(2))
    write("one", folds=[0], name="fold0-seed1-2")
    with pytest.raises(UserError, match=r"fold0-seed1 and .*fold0-seed1-2 are both of fold 0 with seed 1"):
        compared("one", "other")


def test_a_run_that_is_in_both_is_refused(write):
    write("one", folds=[0])
    with pytest.raises(UserError, match="is in one and in one/fold0-seed1; give every run once"):
        compared("one", "one/fold0-seed1")


def test_folds_of_other_settings_are_never_one_row(write):
    write("one", folds=range(2))
    write("one", folds=[2, 3], lr=0.5)
    write("other", folds=range(4))
    with pytest.raises(UserError, match=r"differ in optimizer.lr \(0.001 / 0.5\)"):
        compared("one", "other")


def test_what_cannot_be_compared_does_not_keep_the_others_from_it(write):
    for name, skill in {"one": GOOD, "two": 1.0, "three": BAD}.items():
        write(name, skill=skill)
    write("stray", folds=[0])
    comparison = compared("one", "two", "stray", "three")
    assert comparison.contrasts == compared("one", "two", "three").contrasts
    (note,) = [note for note in comparison.notes if "stray" in note]
    assert note.startswith("stray is left out: it and one were not tested on the same data: their folds differ")


# -- the verb --


def test_a_folder_of_two_settings_is_two_experiments(write, capsys):
    write("mixed", folds=range(9))
    write("mixed", folds=[0], name="fold0-seed1-2", lr=0.5)
    write("other", folds=range(9), skill=GOOD)
    assert main(["compare", "runs/mixed", "runs/other", "--format", "json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [(e["name"], len(e["runs"])) for e in printed["experiments"]] == [
        ("mixed: fold0-seed1 and 8 more", 9),
        ("other", 9),
    ]
    assert any(
        "fold0-seed1-2 is a separate experiment: it differs from fold0-seed1 in optimizer.lr (0.001 / 0.5)" in n
        for n in printed["notes"]
    )
    assert any("mixed: fold0-seed1-2 is left out: it and" in note for note in printed["notes"])


def test_folds_of_other_settings_are_refused_naming_the_settings(write, capsys):
    write("mixed", folds=[0])
    write("mixed", folds=[1], lr=0.5)
    write("other", folds=[0, 1])
    assert main(["compare", "runs/mixed", "runs/other"]) == 2
    assert "optimizer.lr (0.001 / 0.5)" in capsys.readouterr().err


def test_of_two_runs_alike_the_newer_counts_and_the_other_is_named(write, capsys):
    write("one", folds=range(9))
    write("one", folds=[0], name="fold0-seed1-2")
    os.utime(RUNS / "one/fold0-seed1/predictions.csv", (1, 1))
    write("other", folds=range(9), skill=GOOD)
    assert main(["compare", "runs/one", "runs/other"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "runs/one/fold0-seed1 has the settings, fold and seed of fold0-seed1-2, which is newer" in printed


def test_what_is_no_finished_fit_is_named(write, capsys):
    write("one", folds=range(2))
    write("one", folds=[0], name="test-fold0-seed1")
    for name in ("history.csv", "validation.csv"):
        (RUNS / "one/test-fold0-seed1" / name).unlink()
    write("other", folds=range(2))
    assert main(["compare", "runs/one", "runs/other", "--format", "json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("one/test-fold0-seed1 is left out: it is a test of a checkpoint" in note for note in notes)


def test_names_are_printed_as_they_are_in_80_columns(write, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    names = ["[x]:smile:", "a_very_long_name_of_an_experiment_with_everything"]
    for name in names:
        write(name)
    assert main(["compare", *(f"runs/{name}" for name in names)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[: next(i for i, line in enumerate(lines) if line.startswith("All folds"))]
    assert max(map(len, table)) <= 80
    assert any(line.startswith("[x]:smile:") for line in table)
    assert "…" not in "".join(table)
    assert all(line.count("[") == line.count("]") for line in table)  # no interval is broken


BAD_INPUT = {
    "none": ([], "needs two runs or experiments; there is none"),
    "one": (["exp"], "needs two runs or experiments; there is 1"),
    "twice": (["exp", "./exp/"], "exp is given twice"),
    "no folder": (["exp", "nowhere"], "There is no folder nowhere"),
    "no run": (["exp", "empty"], "empty is not a run of ser"),
    "unfinished run": (["exp", "unfinished/fold0-seed1"], "unfinished/fold0-seed1 is not finished"),
    "unfinished experiment": (["exp", "unfinished"], "None of the 1 runs in unfinished is finished"),
    "damaged": (["exp", "damaged"], "fold0-seed1 is damaged"),
    "level": (["exp", "exp", "--level", "95"], "--level is 95.0; it must be between 0 and 1"),
    "level in words": (["exp", "exp", "--level", "high"], "invalid float value: 'high'"),
    "option": (["exp", "--formt", "json"], "There is no option '--formt'. Did you mean '--format'?"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_gets_one_message(write, monkeypatch, capsys, arguments, message):
    write("exp", folds=range(2))
    for name in ("unfinished", "damaged"):
        write(name, folds=[0])
    (RUNS / "unfinished/fold0-seed1/predictions.csv").unlink()
    (RUNS / "damaged/fold0-seed1/protocol.json").write_text("{")
    (RUNS / "empty").mkdir()
    monkeypatch.chdir(RUNS)
    assert main(["compare", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("ser: error: ") == 1
    assert message in captured.err


def test_the_table_says_what_was_found(write, capsys):
    for name, skill in {"bad": BAD, "good": GOOD, "worse": 0.45}.items():
        write(name, skill=skill)
    assert main(["compare", "runs/bad", "runs/good", "runs/worse"]) == 0
    printed = capsys.readouterr().out
    comparison = compared("bad", "good", "worse")
    for name, summary in comparison.summaries.items():
        assert name in printed
        assert f"{100 * summary.scores['uar'].pooled:.1f}" in printed
        assert str(summary.scores["uar"].interval) in printed
    difference = comparison.contrasts["good"].difference
    assert f"{100 * difference.value:+.1f}" in printed
    assert str(difference.interval) in printed
    assert "Both are corrected for 2 comparisons (Holm)" in printed
    assert "good has a significantly higher UAR across speakers than bad (p < 0.001)." in printed
    assert "worse and bad do not differ significantly in UAR across speakers." in printed
    assert "Note: tested on 9 of 10 speakers, without s09" in printed


def test_too_few_speakers_are_marked(write, capsys):
    write("one", folds=range(3))
    write("other", folds=range(3), skill=GOOD)
    assert main(["compare", "runs/one", "runs/other"]) == 0
    printed = capsys.readouterr().out
    assert "]*" in printed
    assert "* only 3 speakers" in printed
    assert "other has a significantly higher UAR across speakers than one* (p " in printed


def test_machines_read_the_same(write, capsys):
    write("one", skill=GOOD)
    write("other")
    assert main(["compare", "runs/one", "runs/other", "--format", "json", "--level", "0.9"]) == 0
    printed = json.loads(capsys.readouterr().out)
    comparison = compare({name: find_runs(RUNS / name) for name in ("one", "other")}, level=0.9)
    assert printed == comparison.plain()
    first, second = printed["experiments"]
    assert first["contrast"] is None
    assert second["contrast"]["difference"]["interval"]["level"] == 0.9
    assert second["contrast"]["mcnemar_p"] == comparison.contrasts["other"].mcnemar_p
    assert len(second["runs"]) == 9


def test_runs_of_real_fits_are_compared(cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.max_epochs", "1", "--trainer.logger", "false", "--trainer.accelerator", "cpu"]
    options += ["--model.net.lstm_hidden", "8", "--model.net.ffn_factor", "1", "--data.cache_dir", str(cache)]
    for number, rate in enumerate((0.01, 1e-9)):
        name = f"rate{number}"
        assert main(["fit", "--config", str(CONFIG), *options, "--optimizer.lr", str(rate), "--run.name", name]) == 0
    capsys.readouterr()
    folder = "runs/cornn-synthetic"
    assert main(["compare", f"{folder}/rate0", f"{folder}/rate1"]) == 0
    printed = capsys.readouterr().out
    for run in ("rate0", "rate1"):
        scores = json.loads(Path(folder, run, "metrics.json").read_text())["test"]
        assert f"{100 * scores['uar']:.1f}" in printed
        assert f"cornn-synthetic/{run}" in printed
    assert "no interval for unseen speakers from one speaker" in printed
    assert "Synthetic speech" in printed
