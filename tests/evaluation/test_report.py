"""``ser report``: the page's content, held against predictions.csv and scikit-learn. What a browser makes of it is
tested in test_report_browser.py."""

import base64
import colorsys
import csv
import html
import io
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from plotly.colors import sample_colorscale
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

from ser.cli import main
from ser.evaluation.summary import summarise
from ser.report.facts import warnings
from ser.report.mistakes import Players, confident_mistakes
from ser.report.plots import SCALE
from ser.runs.folder import read_run

RATE_HZ = 8000


@pytest.fixture
def report(tmp_path, capsys):
    """Run ``ser report``; returns the page, and what was printed to stdout and stderr."""

    def call(*arguments):
        output = tmp_path / "report.html"
        code = main(["report", *map(str, arguments), "--output", str(output)])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return output.read_text(), printed.out, printed.err

    return call


def drawn(page, id):
    """Return the figure that the page's script draws."""
    return json.loads(re.search(rf'class="figure" data-of="{id}">(.*?)</script>', page, re.DOTALL)[1])


def states(page, id):
    """Return what the page's script shows for each choice."""
    return json.loads(re.search(rf'id="{id}-states">(.*?)</script>', page, re.DOTALL)[1])


def words(page):
    """Return the text that a reader sees, without the scripts."""
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def predictions(run):
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [row["target"] for row in rows], [row["predicted"] for row in rows]


def test_the_matrices_are_those_of_predictions_csv(report, write_run):
    runs = [write_run(fold=fold) for fold in (0, 1)]
    page, _, _ = report(*runs)
    labels = json.loads((runs[0] / "protocol.json").read_text())["labels"]
    pooled = np.concatenate([predictions(run) for run in runs], axis=1)
    for state, (truth, predicted) in zip(states(page, "e1-matrix"), [pooled, *map(predictions, runs)], strict=True):
        counts = confusion_matrix(truth, predicted, labels=labels)
        shares = counts / counts.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(state["z"], shares)
        for texts, row, row_shares in zip(state["cells"], counts, shares, strict=True):
            assert texts == [f"{100 * s:.0f}% · {n}" for n, s in zip(row, row_shares, strict=True)]
        uar = recall_score(truth, predicted, average="macro", labels=labels)
        assert f"UAR {uar:.1%}" in state["description"]


def test_the_scores_are_those_of_predictions_csv(report, write_run):
    runs = [write_run(fold=fold) for fold in (0, 1)]
    text = words(report(*runs)[0])
    truth, predicted = np.concatenate([predictions(run) for run in runs], axis=1)
    by_fold = [recall_score(*predictions(run), average="macro") for run in runs]
    assert f"mean of folds {np.mean(by_fold):.1%}" in text
    assert f"± over folds {100 * np.std(by_fold, ddof=1):.1f}" in text
    uar, wa = recall_score(truth, predicted, average="macro"), accuracy_score(truth, predicted)
    assert f"pooled {uar:.1%} {wa:.1%}" in text


def test_what_was_run_is_described(report, write_run):
    text = words(report(write_run(fold=2))[0])
    assert "cornn (ser.models.CoRNN), 1,234 trainable parameters" in text
    assert "Made: 160 utterances of 4 speakers" in text
    assert "LeaveOneSpeakerOut, fold 2 (tests cat); seed 1." in text
    assert "trained on 80 utterances of 2 speakers, selected its checkpoint on 40 utterances of 1 speaker" in text
    assert "Splits are speaker-disjoint" in text
    assert "3 epochs of 1.5 s on cpu (32); tested: the epoch with the best val/uar" in text
    assert "of fold 2" in text  # the fingerprint
    assert "max_epochs: 3" in text  # the config


@pytest.mark.parametrize(
    ("facts", "warning"),
    [
        ({"synthetic": True}, "Synthetic speech, for trying and testing"),
        ({"speaker_disjoint": False}, "The protocol shares speakers between training and test"),
        ({"test_is_validation": True}, "The checkpoint was selected on the test utterances"),
        ({"left_out": [{"file": "a.wav", "reason": "damaged"}]}, "1 file was left out, such as a.wav"),
        ({"found_and_published": {"anger": [3, 5]}}, "differs from the published: anger 3 of 5"),
        ({"notes": ["2 of 9 sentences of test are also spoken in train."]}, "2 of 9 sentences"),
    ],
)
def test_what_must_be_known_of_the_scores_is_found(write_run, facts, warning):
    runs = [read_run(write_run(fold=fold)) for fold in range(3)]
    assert warnings(summarise([*runs, read_run(write_run(fold=3))])) == []
    changed = read_run(write_run("changed", **facts))
    assert any(warning in line for line in warnings(summarise([changed])))


def test_what_must_be_known_is_said_before_the_scores(report, write_run):
    text = words(report(write_run(synthetic=True))[0])
    assert "Synthetic speech" in text[: text.index("Scores")]


def test_names_are_never_markup(report, write_run):
    labels = ["<b>anger</b>", "</script><script>alert(1)</script>", "joy & <i>more</i>"]
    genders = {'"><img src=x onerror=alert(2)>': None, "ben": None}
    runs = [write_run(fold=fold, labels=labels, genders=genders, count=30) for fold in (0, 1)]
    page, _, _ = report(*runs, "--title", "<script>alert(3)</script>")
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<i>more" not in page
    assert drawn(page, "e1-matrix")["data"][0]["x"][0] == "&lt;b&gt;anger&lt;/b&gt;"  # plotly reads markup


def test_the_most_confident_mistakes_come_first_each_file_once(write_run):
    run = write_run(count=3, labels=["x", "y"])
    rows = [("a", "x", 0.9, 0.1), ("b", "x", 0.2, 0.8), ("c", "y", 0.7, 0.3), ("d", "x", 0.4, 0.6)]
    lines = ["file,speaker,target,predicted,p_x,p_y"]
    lines += [f"{file},ann,{target},{'x' if x > y else 'y'},{x},{y}" for file, target, x, y in rows]
    (run / "predictions.csv").write_text("\n".join(lines))
    again = write_run(seed=2, count=3, labels=["x", "y"])
    (again / "predictions.csv").write_text("\n".join(lines).replace("0.8", "0.95").replace("0.2", "0.05"))
    found = confident_mistakes([read_run(run), read_run(again)])
    assert [(m.file, m.truth, m.predicted, m.confidence, m.truth_probability) for m in found] == [
        ("b", "x", "y", 0.95, 0.05),
        ("c", "y", "x", 0.7, 0.3),
        ("d", "x", "y", 0.6, 0.4),
    ]
    assert found[0].run.path == again
    assert [m.file for m in confident_mistakes([read_run(run)], most=1)] == ["b"]


@pytest.fixture
def recording(tmp_path):
    """A corpus of one recording of 0.5 s."""
    samples = np.random.default_rng(0).integers(-3000, 3000, RATE_HZ // 2).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ)
    return samples


def sounds(address):
    content = base64.b64decode(address.removeprefix("data:audio/flac;base64,"))
    return soundfile.read(io.BytesIO(content), dtype="int16")


def test_recordings_are_embedded_sample_for_sample(tmp_path, recording):
    address, remark = Players().source(tmp_path, "a.wav")
    samples, rate_hz = sounds(address)
    assert (rate_hz, remark) == (RATE_HZ, "")
    np.testing.assert_array_equal(samples, recording)


def test_long_recordings_are_cut_and_the_page_does_not_grow_beyond_its_limit(tmp_path, recording):
    address, remark = Players(longest_s=0.1).source(tmp_path, "a.wav")
    np.testing.assert_array_equal(sounds(address)[0], recording[: RATE_HZ // 10])
    assert remark == "the first 0.1 s"
    players = Players(limit_bytes=len(address) * 5)
    first, _ = players.source(tmp_path, "a.wav")
    second, remark = players.source(tmp_path, "a.wav")
    assert first is not None
    assert second is None
    assert remark.startswith("not embedded: the page's audio is limited to")


def test_what_cannot_be_read_is_remarked(tmp_path, recording):
    (tmp_path / "b.wav").write_bytes(b"nonsense")
    for file in ("b.wav", "none.wav"):
        address, remark = Players().source(tmp_path, file)
        assert address is None
        assert remark.startswith("cannot be read: ")


def test_audio_is_embedded_on_request_only(report, write_run, tmp_path):
    run = write_run(skill=0.0)
    files = predictions_files(run)
    for number, file in enumerate(files):
        (tmp_path / "corpus" / file).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "corpus" / file, np.full(800, number, dtype=np.int16), RATE_HZ)
    assert "<audio" not in report(run)[0]
    page, _, _ = report(run, "--audio")
    addresses = re.findall(r'<audio [^>]*src="([^"]+)" aria-label="([^"]+)"', page)
    assert len(addresses) == 12
    for address, file in addresses:
        assert set(sounds(address)[0].tolist()) == {files.index(file)}


def predictions_files(run):
    with (run / "predictions.csv").open() as file:
        return [row["file"] for row in csv.DictReader(file)]


def test_experiments_are_ranked_with_their_significance(report, write_run):
    genders = {f"s{i:02}": "female" if i % 2 else "male" for i in range(12)}
    for name, skill in (("poor", 0.0), ("good", 4.0), ("fair", 3.9)):
        for fold in range(len(genders)):
            write_run(name, fold, skill=skill, genders=genders)
    page, out, _ = report(*(write_run.root / name for name in ("poor", "good", "fair")))
    text = words(page)
    assert "good has the highest UAR. It is significantly higher across speakers than that of poor (p < 0.05)." in text
    assert "It does not differ significantly from that of fair." in text
    assert "corrected for 2 comparisons (Holm)" in text
    league = text[text.index("experiment runs UAR") :]
    assert league.index("good") < league.index("fair") < league.index("poor")
    assert re.search(r"poor 12 [\d.]+% [\d.]+% [\d.]+% -\d+\.\d \[-\d+\.\d, -\d+\.\d\] < 0.001 < 0.001", league)
    assert "Report on poor, good, fair" in out


def test_the_best_is_the_best_in_what_can_be_compared(report, write_run):
    for fold in range(4):
        write_run("two_seeds", fold, seed=1, skill=1.0)
        write_run("two_seeds", fold, seed=2, skill=9.0)
        write_run("one_seed", fold, seed=1, skill=2.0)
    text = words(report(write_run.root / "two_seeds", write_run.root / "one_seed")[0])
    assert "one_seed has the highest UAR." in text
    assert "fold0-seed2 is left out" in text


def test_experiments_of_different_data_have_no_significance_and_say_why(report, write_run):
    runs = [write_run("one"), write_run("other", fingerprint="of another split", fold=1)]
    text = words(report(*runs)[0])
    assert "No two experiments were tested on the same data, so none is ranked" in text
    assert "other and one: their folds differ, 0 / 1." in text
    assert "McNemar" not in text


def test_one_that_cannot_be_compared_stands_alone_and_the_others_keep_their_p_values(report, write_run):
    genders = {f"s{i:02}": "female" if i % 2 else "male" for i in range(12)}
    for name, skill in (("poor", 0.5), ("good", 2.0)):
        for fold in range(len(genders)):
            write_run(name, fold, skill=skill, genders=genders)
    write_run("one_fold", 0, skill=9.0, genders=genders)
    text = words(report(*(write_run.root / name for name in ("one_fold", "poor", "good")))[0])
    assert "good has the highest UAR." in text
    ranking, alone = text[text.index("UAR difference") :].split("Not ranked: tested on other data")
    assert re.search(r"good 12 .* best poor 12 .* < 0.001", ranking)
    assert "one_fold" not in ranking
    assert re.search(r"one_fold 1 100.0% .* one_fold and poor: their folds differ, 0, 1,", alone)


def test_experiments_of_other_emotions_are_shown_and_not_ranked(report, write_run):
    write_run("fine")
    write_run("other_labels", labels=["joy", "anger"], fingerprint="of others")
    page, _, _ = report(write_run.root / "fine", write_run.root / "other_labels")
    assert "their emotions differ, anger, sadness, happiness, neutral / joy, anger." in words(page)
    assert drawn(page, "e2-matrix")["data"][0]["x"] == ["joy", "anger"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sampling": "balanced"}, "data.sampling (shuffle / balanced)"),
        ({"limit_train_batches": 0.5}, "trainer.limit_train_batches (None / 0.5)"),
        ({"lr": 0.5}, "optimizer.lr (0.001 / 0.5)"),
        ({"corpus": "Other"}, "corpus (Made / Other)"),
        ({"genders": {"eve": None, "fay": None}}, "speakers ("),
    ],
)
def test_what_is_not_alike_is_another_experiment_that_says_why(report, write_run, changes, named):
    write_run("mixed", fold=0)
    write_run("mixed", fold=1, **changes)
    page, _, err = report(write_run.root / "mixed")
    assert f"A separate experiment: it differs from fold0-seed1 in {named}" in words(page)
    assert f"mixed: fold1-seed1 is a separate experiment: it differs from fold0-seed1 in {named}" in err
    assert words(page).count("Comparison with the paper") == 2


def test_of_two_runs_alike_the_newer_is_shown_and_the_other_named(report, write_run):
    older, newer = write_run(), write_run(name="fold0-seed1-2")
    os.utime(older / "predictions.csv", (1, 1))
    page, _, err = report(older.parent)
    assert f"Left out: {older} has the settings, fold and seed of fold0-seed1-2, which is newer" in err
    assert "from 1 run folder." in words(page)
    assert f"Config of {newer.name}" in words(page)


FOREIGN = {
    "checkpoint": "runs/theirs/best.ckpt",
    "sha256": "0123456789abcdef",
    "system": "theirs",
    "trained_on": [
        {"corpus": "Elsewhere", "synthetic": False, "fold": 3, "speakers": {"train": ["zoe", "yan"], "val": ["xia"]}}
    ],
}


@pytest.fixture
def tested(write_run):
    """Return the folder of a run of ``ser test``, of a checkpoint of another corpus."""
    empty = {"utterances": 0, "speakers": []}
    run = write_run(name="test-fold0-seed1", trained_here=False, train=empty, val=empty)
    for name in ("validation.csv", "history.csv"):
        (run / name).unlink()
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({"test": metrics["test"]}))
    (run / "model.json").write_text(json.dumps(FOREIGN))
    return run


def test_a_test_of_a_checkpoint_says_what_it_was_trained_on(report, tested):
    text = words(report(tested)[0])
    assert "Trained on Elsewhere fold 3 (speakers yan, zoe; selected on xia), tested on Made (speakers ann)" in text
    assert "checkpoint runs/theirs/best.ckpt, SHA-256 0123456789ab, system theirs" in text
    assert "Each run tested a checkpoint on 40 utterances of 1 speaker" in text
    assert "theirs on Made" in text
    for claim in ("trained on 0", "Each run trained", "speaker-disjoint"):
        assert claim not in text


def test_the_same_checkpoint_may_be_tested_on_its_own_fold(report, tested, write_run):
    protocol = json.loads((tested / "protocol.json").read_text())
    split = {"utterances": 80, "speakers": ["bob", "cat"]}
    changed = {**protocol, "trained_here": True, "train": split, "val": split}
    (tested / "protocol.json").write_text(json.dumps(changed))
    assert "Each run trained on 80 utterances of 2 speakers" in words(report(tested)[0])


def test_what_is_no_fit_in_an_experiment_is_left_out_by_name(report, tested, write_run):
    fit = write_run()
    validated = write_run(name="validate-fold0-seed1")
    for name in ("validation.csv", "history.csv", "predictions.csv"):
        (validated / name).unlink()
    predicted = tested.parent / "predict-mix"
    predicted.mkdir()
    (predicted / "predictions.csv").write_text("file,emotion\n")
    page, _, err = report(fit.parent)
    for run, what in (
        (tested, "is a test of a checkpoint"),
        (validated, "is a validation of a checkpoint"),
        (predicted, "holds predictions of recordings without labels"),
    ):
        assert f"Left out: {run} {what}" in err
        assert f"{run} {what}" in words(page)
    page, _, err = report(fit.parent, tested)  # named: shown, and apart from the fit
    assert str(tested) not in err
    assert "Trained on Elsewhere" in words(page)


def test_only_what_was_scored_is_called_tested(report, write_run):
    run = write_run()
    predictions = run / "predictions.csv"
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:9]))
    text = words(report(run)[0])
    assert "tested on 8 utterances of 1 speaker" in text
    assert "Only part of a test set was scored: 8 of 40 utterances in fold0-seed1." in text


def test_learning_curves_have_a_point_where_something_was_measured(report, write_run):
    run = write_run()
    lines = ["epoch,seconds,train/loss,train/uar,val/loss,val/uar", "0,1,1.4,0.3,,", "1,1,1.2,0.4,1.3,0.5"]
    (run / "history.csv").write_text("\n".join([*lines, "2,1,1.0,0.5,,", ""]))
    page, _, _ = report(run)
    curves = drawn(page, "e1-curves")["data"]
    assert [(trace["x"], trace["y"]) for trace in curves[:2]] == [([1], [0.5]), ([0, 1, 2], [0.3, 0.4, 0.5])]
    assert "markers" in curves[0]["mode"]
    assert re.search(r"fold0-seed1 3 1 50.0% 40.0% 1.300 1.000", words(page))


# -- what is drawn --


def test_uar_is_drawn_with_the_line_of_chance_on_axes_in_percent(report, write_run):
    runs = [write_run("one"), write_run("other")]
    page, _, _ = report(*runs)
    for id, axis in (("league-plot", "x"), ("e1-speakers", "x"), ("e1-recalls", "x"), ("e1-curves", "y")):
        layout = drawn(page, id)["layout"]
        assert layout[f"{axis}axis"]["tickformat"] == ".0%"
        (line,) = layout["shapes"]
        assert line[f"{axis}0"] == line[f"{axis}1"] == 0.25
        assert "chance 25%" in [note["text"] for note in layout["annotations"]]
    assert drawn(page, "e1-calibration-coverage")["layout"]["shapes"][0]["y0"] == 0.25


def test_the_coverage_curve_begins_with_twenty_utterances(report, write_run):
    page, _, _ = report(write_run(count=400))
    coverage = drawn(page, "e1-calibration-coverage")["data"][0]["x"]
    assert coverage[0] == pytest.approx(0.1)
    assert coverage[-1] == 1
    few = drawn(report(write_run("few", count=40))[0], "e1-calibration-coverage")["data"][0]["x"]
    assert few[0] == pytest.approx(20 / 40)


def test_a_matrix_has_one_hue_that_gets_darker():
    shades = sample_colorscale(SCALE, np.linspace(0, 1, 11).tolist(), colortype="tuple")
    lightness = [colorsys.rgb_to_hls(*shade)[1] for shade in shades]
    assert shades[0] == (1, 1, 1)
    assert all(dark < light for light, dark in itertools.pairwise(lightness))
    hues = [colorsys.rgb_to_hls(*shade)[0] for shade in shades[1:]]
    assert max(hues) - min(hues) < 0.06  # of the circle: blue
    assert all(0.5 < hue < 0.7 for hue in hues)


def test_runs_of_a_folder_with_other_settings_are_other_experiments(report, write_run):
    write_run("tries", fold=0, name="a")
    write_run("tries", fold=1, name="b")
    write_run("tries", fold=0, name="c", lr=1e-4)
    text = words(report(write_run.root / "tries")[0])
    assert "tries: a and 1 more" in text
    assert "tries: c" in text


def test_a_run_that_is_given_twice_counts_once(report, write_run):
    run = write_run()
    page, out, _ = report(run, run.parent, run / ".." / run.name)
    assert "from 1 run folder." in words(page)
    assert out.startswith("Report on cornn-made: ")


def test_unfinished_runs_of_an_experiment_are_left_out_and_named(report, write_run):
    run = write_run()
    unfinished = write_run(fold=1)
    (unfinished / "predictions.csv").unlink()
    page, _, err = report(run.parent)
    assert f"Left out: {unfinished} is not finished" in err
    assert f"{unfinished} is not finished" in words(page)
    assert "from 1 run folder." in words(page)


def test_the_papers_numbers_stand_beside_ours(report, write_run):
    page, _, _ = report(write_run(corpus="IEMOCAP"))
    text = words(page)
    assert "Huang, Sun, Yang and Hou" in text
    assert re.search(r"the paper IEMOCAP 10 folds .*? 65\.53%", text)
    assert "The diagonal of the published matrix averages 63.20, not 65.53" in text
    ours, theirs = (drawn(page, f"e1-paper-{which}")["data"][0] for which in ("ours", "0"))
    assert ours["x"] == theirs["x"] == ["anger", "sadness", "happiness", "neutral"]
    assert theirs["z"][1][1] == pytest.approx(0.8207)
    other = words(report(write_run("made"))[0])
    assert "The paper's corpus is IEMOCAP, not Made: scores cannot be compared." in other


def test_our_matrix_takes_the_papers_order_of_emotions(report, write_run):
    labels = ["neutral", "happiness", "sadness", "anger"]
    run = write_run(corpus="IEMOCAP", labels=labels)
    ours = drawn(report(run)[0], "e1-paper-ours")["data"][0]
    counts = confusion_matrix(*predictions(run), labels=["anger", "sadness", "happiness", "neutral"])
    np.testing.assert_allclose(ours["z"], counts / counts.sum(axis=1, keepdims=True))


def test_an_unpublished_system_has_no_paper(report, write_run):
    assert "Comparison with the paper" not in words(report(write_run(system="mine"))[0])


def test_a_test_of_an_older_ser_can_be_reported(report, write_run):
    run = write_run()
    for name in ("config.yaml", "validation.csv", "history.csv"):
        (run / name).unlink()
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({"test": metrics["test"]}))
    text = words(report(run)[0])
    assert "A checkpoint of unknown origin and training data was tested." in text
    assert "Each run trained" not in text
    assert "No temperature was fitted" in text
    assert "Learning curves" not in text


def test_a_fit_that_diverged_can_be_reported(report, write_run):
    run = write_run(fold=0)
    (run / "history.csv").write_text("epoch,seconds,val/loss,val/uar,train/loss,train/uar\n0,1.5,nan,0.25,inf,0.3\n")
    curves = drawn(report(run)[0], "e1-curves")["data"]  # JSON, as a browser reads it
    assert [trace["y"] for trace in curves][:4] == [[0.25], [0.3], [None], [None]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "No run is given."),
        (["nowhere"], "There is no folder nowhere"),
        (["empty"], "empty is not a run of ser"),
        (["unfinished/fold0-seed1"], "is not finished: it holds no predictions.csv"),
        (["unfinished"], "None of the 1 runs in unfinished is finished"),
        (["damaged"], "is damaged"),
        (["fine", "--output", "empty"], "--output empty is a folder"),
        (["fine", "--output", "page.pdf"], "--output page.pdf must end in .html"),
        (["fine", "--output", "file/page.html"], "is not writable"),
        (["fine", "--audio"], "there is no corpus folder"),
        (["fine", "--audi"], "There is no option '--audi'. Did you mean '--audio'? See ser report --help."),
    ],
)
def test_bad_input_gets_one_message_and_writes_nothing(write_run, monkeypatch, capsys, arguments, message):
    write_run("fine")
    (write_run("unfinished") / "predictions.csv").unlink()
    (write_run("damaged") / "metrics.json").write_text("{")
    (write_run.root / "empty").mkdir()
    (write_run.root / "file").write_text("")
    monkeypatch.chdir(write_run.root)
    before = sorted(write_run.root.rglob("*"))
    assert main(["report", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("ser: error: ")
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert sorted(write_run.root.rglob("*")) == before


def test_the_pictures_of_the_guide_are_there_and_small():
    guide = Path(__file__).parents[2] / "docs/results.md"
    pictures = [guide.parent / name for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", guide.read_text())]
    assert len(pictures) >= 3
    assert all(picture.stat().st_size < 150_000 for picture in pictures)
