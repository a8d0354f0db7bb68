"""Checkpoints and run folders of format 1, made by commit d96052d, are read and resumed."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch

from ser.cli import main
from ser.corpora import Synthetic
from ser.data import LogMel, Preprocess
from ser.runs.folder import read_run
from ser.training.checkpoints import read_checkpoint
from ser.training.task import EmotionClassifier

OLD = Path(__file__).parent / "fixtures/run_of_format_1"


@pytest.fixture
def ser(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(OLD, "runs/cornn_no_conformer-synthetic/fold0-seed1")
    places = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--data.cache_dir", str(cache)]
    return lambda verb, *options: main([verb, *map(str, options), *places])


def probabilities(path):
    with path.open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    return {(name, key): float(row[key]) for name, row in rows.items() for key in row if key.startswith("p_")}


def test_an_older_checkpoint_recognises_as_it_did(ser, cache, capsys):
    best = OLD / "checkpoints/best.ckpt"
    assert ser("test", "--ckpt_path", best, "--data", "Synthetic") == 0
    assert "older format" in " ".join(capsys.readouterr().out.split())
    run = Path("runs/cornn_no_conformer-synthetic/test-fold0-seed1")
    expected = pytest.approx(probabilities(OLD / "predictions.csv"), abs=1e-5)
    assert probabilities(run / "predictions.csv") == expected
    assert json.loads((run / "protocol.json").read_text())["trained_here"] is True
    recordings = Synthetic(cache_dir=cache).locate()
    assert ser("predict", "--ckpt_path", best, "--data", "AudioFolder", "--data.root", recordings) == 0
    (predicted,) = Path("runs/cornn_no_conformer-audiofolder").glob("*/predictions.csv")
    found = probabilities(predicted)
    assert {key: found[key] for key in probabilities(OLD / "predictions.csv")} == expected
    assert ser("test", "--ckpt_path", best, "--data", "Synthetic", "--data.fold", 4) == 2
    assert "Test speaker spk05 was used to train or select this checkpoint" in capsys.readouterr().err


def test_an_older_checkpoint_is_loaded_in_python(cache, make_trainer):
    task = EmotionClassifier.load_from_checkpoint(OLD / "checkpoints/best.ckpt")
    data = Synthetic(features=LogMel(n_mels=4), preprocess=Preprocess(pre_emphasis=0.97), cache_dir=cache)
    (scores,) = make_trainer(1).test(task, data, verbose=False)
    assert scores["test/uar"] == pytest.approx(read_run(OLD).test.scores()["uar"])


def test_an_older_fit_goes_on(ser):
    run = Path("runs/cornn_no_conformer-synthetic/fold0-seed1")
    config = [*("--config", run / "config.yaml"), "--trainer.max_epochs", 2, "--ckpt_path", "last"]
    assert ser("fit", *config) == 0
    assert json.loads((run / "metrics.json").read_text())["fit"]["epochs"] == 2
    assert len((run / "history.csv").read_text().splitlines()) == 3
    assert len((run / "validation.csv").read_text().splitlines()) == 25
    assert b"files" not in (run / "checkpoints/last.ckpt").read_bytes()


def test_an_older_run_is_compared_and_shown(ser, capsys):
    shutil.copytree(OLD, "other/fold0-seed1")
    assert main(["compare", "runs/cornn_no_conformer-synthetic", "other"]) == 0
    assert main(["report", "other", "--output", "report.html"]) == 0
    assert Path("report.html").stat().st_size > 1e5


def test_former_settings_of_a_paper_s_bugs_are_read_as_what_gives_the_same(tmp_path):
    def reread(normalize, waveform_norm, scale):
        checkpoint = torch.load(OLD / "checkpoints/best.ckpt", weights_only=True)
        checkpoint["hyper_parameters"]["normalize"] = normalize
        checkpoint["front_end"]["preprocess"]["waveform_norm"] = waveform_norm
        checkpoint["front_end"]["features"]["init_args"] |= {"scale": scale, "top_db": 80.0}
        torch.save(checkpoint, tmp_path / "old.ckpt")
        front_end = read_checkpoint(tmp_path / "old.ckpt")["front_end"]
        features = front_end["features"]["init_args"]
        return front_end["preprocess"]["waveform_norm"], features["scale"], features["top_db"]

    assert reread("sign", "none", "doubled_db") == ("none", "db", 40.0)
    assert reread("none", "signed_max", "db_of_max") == ("peak", "db_of_max", 80.0)
    assert reread("none", "peak", "db") == ("peak", "db", 80.0)
