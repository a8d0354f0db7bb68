"""Names are text: of speakers, sentences, emotions, runs and experiments, on the command line, in configs and after."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from ser.cli import main
from ser.cli.crossval import PlanningCLI
from ser.corpora import Table
from ser.data import FixedSpeakers, LeaveOneSpeakerOut, SpeechCorpus, Utterance
from ser.settings.names import as_name, look_alikes, meant
from ser.sweep.space import read_sweep

CONFIG = str(Path(__file__).parents[2] / "configs/cornn.yaml")
ODD = ["yes", "no", "null", "true", "1e3", "2024-01-01", "01", "1"]
SPEAKERS = ["0008", "0010", "1e3", "null"]


@pytest.fixture
def ser(tmp_path, monkeypatch):
    """Run a verb in an empty folder; returns the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ser"])
    return lambda *args: main([*map(str, args)])


@pytest.fixture
def root(tmp_path):
    """A folder for every odd emotion, of four speakers."""
    noise = np.random.default_rng(3)
    for emotion in ODD:
        (tmp_path / "odd" / emotion).mkdir(parents=True)
        for speaker in SPEAKERS:
            for take in range(2):
                path = tmp_path / "odd" / emotion / f"{speaker}_{take}.wav"
                soundfile.write(path, noise.uniform(-0.5, 0.5, 1600), 16000, subtype="PCM_16")
    return tmp_path / "odd"


@pytest.fixture
def options(root, tmp_path):
    corpus = ["--data", "EmotionFolders", "--data.root", root, "--data.speaker_pattern", "^[^_]+"]
    return [*corpus, "--data.cache_dir", tmp_path / "cache"]


def described(ser, capsys, *args):
    assert ser("data", *args, "--format", "json") == 0
    return json.loads(capsys.readouterr().out)


def speakers(data):
    return [data["folds"][0][name]["speakers"] for name in ("train", "val", "test")]


def test_speakers_whose_names_are_octal_numbers(ser, options, capsys, tmp_path):
    given = ["--data.protocol", "FixedSpeakers", "--data.protocol.val", "[0010]", "--data.protocol.test", "[1e3, null]"]
    assert speakers(described(ser, capsys, *options, *given)) == [["0008"], ["0010"], ["1e3", "null"]]
    config = tmp_path / "protocol.yaml"
    config.write_text(
        "data:\n  class_path: EmotionFolders\n  init_args:\n    protocol:\n      class_path: FixedSpeakers\n"
        "      init_args: {val: [0010], test: [1e3, null]}\n"
    )
    assert speakers(described(ser, capsys, "--config", config, *options)) == [
        ["0008"],
        ["0010"],
        ["1e3", "null"],
    ]


def test_one_validation_speaker(ser, options, capsys, tmp_path):
    given = ["--data.protocol", "LeaveOneSpeakerOut", "--data.protocol.validation_speaker"]
    assert speakers(described(ser, capsys, *options, *given, "0010"))[1] == ["0010"]
    config = tmp_path / "protocol.yaml"
    config.write_text("data: {class_path: EmotionFolders, init_args: {protocol: {class_path: LeaveOneSpeakerOut")
    config.write_text(config.read_text() + ", init_args: {validation_speaker: 1e3}}}}")
    assert speakers(described(ser, capsys, "--config", config, *options))[1] == ["1e3"]
    assert ser("data", *options, *given, "010") == 2
    assert "Did you mean '0010'?" in capsys.readouterr().err


@pytest.mark.parametrize("label", ODD)
def test_an_emotion_by_its_name(ser, options, capsys, label):
    other = "no" if label == "yes" else "yes"
    data = described(ser, capsys, *options, "--data.emotions", f"[{label}, {other}]")
    assert data["labels"] == [label, other]
    data = described(ser, capsys, *options, "--data.merge", f"{{{label}: {other}}}")
    assert data["emotions"][other] == [16, None]
    assert label not in data["labels"]


def test_a_table_s_columns_and_numeric_labels(ser, capsys, root, tmp_path):
    lines = [f"{path},{ODD.index(path.parent.name)},{path.stem[:-2]}" for path in sorted(root.rglob("*.wav"))]
    (tmp_path / "t.csv").write_text("\n".join(["0,1,2", *lines]))
    table = ["--data", "Table", "--data.root", tmp_path / "t.csv", "--data.cache_dir", tmp_path / "cache"]
    table += ["--data.columns", "{file: 0, emotion: 1, speaker: 2}"]
    data = described(ser, capsys, *table, "--data.merge", "{0: calm, 1: calm}", "--data.emotions", "[calm, 2, 3]")
    assert data["emotions"] == {"calm": [16, None], "2": [8, None], "3": [8, None]}
    assert ser("data", *table, "--data.merge", "{00: calm}") == 2
    assert "merge: 00 not found" in (said := capsys.readouterr().err)
    assert "Did you mean '0'?" in said


@pytest.mark.parametrize(
    "names",
    [("1e-3", "2024", "0010"), ("1_000", "yes", "2024-01-01"), (".5", "1:30", "1.50"), ("[a, b]", "#1", "a: b")],
)
def test_names_of_runs_survive_a_config(names, tmp_path, monkeypatch, cache):
    monkeypatch.setattr(sys, "argv", ["ser"])

    def plan(*args):
        cli = PlanningCLI(["fit", *args, "--trainer.logger", "false", "--data.cache_dir", str(cache)])
        run, data = cli.config.fit.run, cli.config.fit.data.init_args
        return (run.experiment, run.name, run.system), data.merge, cli.config_text

    options = [f"--run.{option}={name}" for option, name in zip(("experiment", "name", "system"), names, strict=True)]
    options += ["--data.merge", f'{{anger: "{names[0]}"}}', "--optimizer.lr", "1e-5", "--trainer.max_epochs", "5"]
    given, merge, text = plan("--config", CONFIG, *options)
    assert (given, merge) == (names, {"anger": names[0]})
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert plan("--config", str(config)) == (given, merge, text)
    plainly = yaml.safe_load(text)
    assert (plainly["run"]["name"], plainly["trainer"]["max_epochs"]) == (names[1], 5)
    assert plainly["optimizer"]["init_args"]["lr"] == 1e-5
    if "#1" not in names:  # written without quotes, too
        config.write_text("run: {{experiment: {}, name: {}, system: {}}}".format(*names))
        assert plan("--config", CONFIG, "--config", str(config))[0] == names


def test_numbers_switches_and_nothing_are_what_they_were(tmp_path, monkeypatch, cache):
    monkeypatch.setattr(sys, "argv", ["ser"])
    config = tmp_path / "c.yaml"
    config.write_text(
        "trainer: {max_epochs: 010, fast_dev_run: yes, limit_train_batches: .5, gradient_clip_val: ~, devices: 1}\n"
        "optimizer: {class_path: Adam, init_args: {lr: 1e-3, betas: [0.9, 1e-1]}}\nlr_scheduler: null\n"
    )
    arguments = ["--data.cache_dir", str(cache), "--trainer.deterministic", "True", "--early_stopping.patience", "7"]
    fit = PlanningCLI(["fit", "--config", CONFIG, "--config", str(config), *arguments]).config.fit
    trainer = fit.trainer
    assert (trainer.max_epochs, trainer.fast_dev_run, trainer.limit_train_batches) == (10, True, 0.5)
    assert (trainer.gradient_clip_val, trainer.devices, trainer.deterministic) == (None, 1, True)
    assert fit.optimizer.init_args.betas == (0.9, 0.1)
    assert [type(beta) for beta in fit.optimizer.init_args.betas] == [float, float]
    assert (fit.optimizer.init_args.lr, fit.lr_scheduler, fit.early_stopping.patience) == (0.001, None, 7)


def test_odd_labels_from_a_fit_to_its_report(ser, options, root, tmp_path, capsys):
    small = ["--model.net.lstm_hidden", 8, "--model.net.ffn_factor", 1, "--trainer.max_epochs", 1]
    quiet = ["--trainer.accelerator", "cpu", "--trainer.logger", "false"]
    assert (
        ser("fit", "--config", CONFIG, *small, *quiet, *options, "--run.experiment", "1e-3", "--run.name", "010") == 0
    )
    before, _, after = capsys.readouterr().out.partition("Epoch 0")
    alike = "Note: The emotions '01', '1' count as different."
    assert alike in before
    assert alike in after
    run = tmp_path / "runs/1e-3/010"
    labels = sorted(ODD)
    assert json.loads((run / "protocol.json").read_text())["labels"] == labels
    checkpoint = run / "checkpoints/best.ckpt"
    assert ser("test", "--ckpt_path", checkpoint, *options, *quiet, "--run.experiment", "x", "--run.name", "t") == 0
    scores = [json.loads((path / "metrics.json").read_text())["test"] for path in (run, tmp_path / "runs/x/test-t")]
    assert scores[0]["recalls"] == scores[1]["recalls"]
    assert [*scores[0]["recalls"]] == labels
    (tmp_path / "2024.05.01").mkdir()
    (root / "yes/1e3_0.wav").rename(tmp_path / "2024.05.01/a.b.wav")
    given = ["--data.root", tmp_path / "2024.05.01", "--data.cache_dir", tmp_path / "cache", "--run.experiment", "x"]
    assert ser("predict", "--ckpt_path", checkpoint, *quiet, *given) == 0
    header = (tmp_path / "runs/x/predict-2024.05.01/predictions.csv").read_text().splitlines()[0]
    assert header.endswith(",".join(f"p_{label}" for label in labels))
    given[1] /= "a.b.wav"  # of a file, the ending is cut
    assert ser("predict", "--ckpt_path", checkpoint, *quiet, *given) == 0
    assert (tmp_path / "runs/x/predict-a.b").is_dir()
    assert ser("report", run, "--output", tmp_path / "r.html") == 0
    assert "2024-01-01" in (tmp_path / "r.html").read_text()


def test_a_sweep_s_values_are_names(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(
        "method: grid\nmetric: {name: val/uar, goal: maximize}\ncommand: [ser, fit, '${args}']\n"
        "parameters: {data.protocol.validation_speaker: {values: [0010, 03]}, optimizer.lr: {value: 1e-3}}\n"
    )
    sweep = read_sweep(file)
    speaker = "data.protocol.validation_speaker"
    assert sweep.space[speaker].choices == ("0010", "03")
    assert sweep.arguments({speaker: "0010"}) == ["--optimizer.lr=0.001", f"--{speaker}=0010"]


def test_python_may_give_numbers():
    assert FixedSpeakers(val=[3], test=[4], train=[None, 1.5, True]).train == ["null", "1.5", "true"]
    assert LeaveOneSpeakerOut(3).validation_speaker == "3"
    corpus = Table(emotions=[0, 1], merge={2: 1}, columns={"speaker": 7})
    assert (corpus.emotions, corpus.merge, corpus.columns) == (["0", "1"], {"2": "1"}, {"speaker": "7"})
    utterance = Utterance(Path("a.wav"), 1, 2, session=3, sentence=4)
    assert (utterance.emotion, utterance.speaker, utterance.session, utterance.sentence) == ("1", "2", "3", "4")


def test_the_nearest_name():
    assert as_name("0010") == "0010"
    assert meant("3", ["30", "13", "03"]) == " Did you mean '03'?"
    assert meant("ana", ["anna", "ben"]) == " Did you mean 'anna'?"
    assert meant("x", ["anna"]) == ""


def test_names_that_look_alike():
    names = [
        "Anger",
        "anger",
        " anger",
        "caf\u00e9",
        "cafe\u0301",
        "03",
        "3",
        "spk1",
        "spk01",
        "0",
        "00",
        "10",
        "1.0",
        "x",
    ]
    groups = [["0", "00"], ["03", "3"], [" anger", "Anger", "anger"], ["cafe\u0301", "caf\u00e9"], ["spk01", "spk1"]]
    assert sorted(look_alikes(names)) == sorted(groups)


class Minimal(SpeechCorpus):
    """A corpus is its parser."""

    def utterances(self, root):
        for path in sorted(root.glob("*.wav")):
            speaker, emotion, _ = path.stem.split("_")
            yield Utterance(path, emotion, speaker)


class Unfinished(SpeechCorpus):
    """Not even that."""


def test_a_corpus_class_needs_a_parser_and_nothing_else(ser, make_corpus, capsys, tmp_path, monkeypatch):
    root = make_corpus()
    corpus = Minimal(root, cache_dir=tmp_path / "cache")
    corpus.prepare_data()
    assert (corpus.name, corpus.licence, corpus.published) == ("Minimal", "unknown", {})
    assert corpus.protocol_description()["corpus"] == "Minimal"
    monkeypatch.setitem(sys.modules, "mine", sys.modules[__name__])
    monkeypatch.setattr(Unfinished, "__module__", "mine")
    assert ser("data", "--data", "mine.Minimal", "--data.root", root, "--data.cache_dir", tmp_path / "cache") == 0
    assert "Minimal in" in capsys.readouterr().out
    assert ser("data", "--data", "mine.Unfinished", "--data.root", root) == 2
    assert "mine.Unfinished is incomplete; it must define utterances." in capsys.readouterr().err
