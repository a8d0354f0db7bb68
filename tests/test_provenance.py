"""A score names its model, and what that was trained on."""

import hashlib
import json
from pathlib import Path

import pytest
import soundfile
import torch

from ser.cli import main
from tests.conftest import RATE_HZ, speech

CONFIG = str(Path(__file__).parents[1] / "configs/cornn_no_conformer.yaml")
SMALL = ["--model.net.lstm_hidden", "2", "--data.features.n_mels", "4", "--trainer.max_epochs", "1"]


@pytest.fixture(scope="module")
def best(tmp_path_factory, cache):
    root = tmp_path_factory.mktemp("fitted")
    places = ["--trainer.logger", "false", "--run.root", str(root), "--data.cache_dir", str(cache)]
    assert main(["fit", "--config", CONFIG, *SMALL, *places, "--trainer.accelerator", "cpu"]) == 0
    return root / "cornn_no_conformer-synthetic/fold0-seed1/checkpoints/best.ckpt"


@pytest.fixture
def ser(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--data.cache_dir", str(cache)]
    return lambda verb, *options: main([verb, *map(str, options), *places])


@pytest.fixture
def emodb(tmp_path):
    """A corpus named like EMO-DB's, of two of its speakers and four emotions."""
    root = tmp_path / "emodb"
    root.mkdir()
    for speaker in ("03", "08", "09"):
        for letter in "WFNT":
            for take in "abc":
                samples = speech(int(speaker) * 1000 + ord(letter) * 10 + ord(take), 0.3)
                soundfile.write(root / f"{speaker}a01{letter}{take}.wav", samples, RATE_HZ)
    return root


def test_a_test_on_another_corpus_claims_no_training_there(ser, best, emodb, capsys):
    assert ser("test", "--ckpt_path", best, "--data", "EmoDB", "--data.root", emodb) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Trained on Synthetic (speakers spk03, spk04, spk05, spk06, spk07, spk08), tested on EMO-DB" in said
    assert "sentences of test are also" not in said
    assert "test/uar" not in said  # Lightning's own table of the same scores
    (run,) = Path("runs").glob("*/*")
    assert run.parent.name == "cornn_no_conformer-emodb"  # the system of the checkpoint, not its network's class
    sha256 = hashlib.sha256(best.read_bytes()).hexdigest()
    model = json.loads((run / "model.json").read_text())
    assert (model["checkpoint"], model["sha256"], model["system"]) == (str(best), sha256, "cornn_no_conformer")
    assert model["trained_on"][0]["corpus"] == "Synthetic"
    assert "recordings" not in model["trained_on"][0]
    protocol = json.loads((run / "protocol.json").read_text())
    assert protocol["trained_here"] is False
    assert protocol["train"]["utterances"] == 0
    assert protocol["test"]["speakers"] == ["03"]
    assert json.loads((run / "metrics.json").read_text())["test"]["sha256"] == sha256
    assert f"ckpt_path: {best}" in (run / "config.yaml").read_text()


def test_a_test_of_its_own_fold_says_what_it_was_trained_on(ser, best):
    assert ser("test", "--ckpt_path", best, "--data", "Synthetic") == 0
    protocol = json.loads(Path("runs/cornn_no_conformer-synthetic/test-fold0-seed1/protocol.json").read_text())
    assert protocol["trained_here"] is True
    assert protocol["train"]["utterances"] == 144


def test_predictions_of_two_models_name_them(ser, best, tmp_path, emodb):
    other = tmp_path / "other.ckpt"
    checkpoint = torch.load(best, weights_only=True)
    checkpoint["state_dict"]["feature_mean"] += 1
    torch.save(checkpoint, other)
    hashes = set()
    for path in (best, other):
        assert ser("predict", "--ckpt_path", path, "--data", "AudioFolder", "--data.root", emodb) == 0
    for run in Path("runs/cornn_no_conformer-audiofolder").iterdir():
        model = json.loads((run / "model.json").read_text())
        assert Path(model["checkpoint"]) in (best, other)
        hashes.add(model["sha256"])
    assert hashes == {hashlib.sha256(path.read_bytes()).hexdigest() for path in (best, other)}


def test_an_older_checkpoint_takes_its_system_from_its_run_folder(ser, best, tmp_path):
    checkpoint = torch.load(best, weights_only=True)
    del checkpoint["system"]
    run = tmp_path / "old/run"
    (run / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, run / "checkpoints/best.ckpt")
    (run / "config.yaml").write_text((best.parents[1] / "config.yaml").read_text())
    assert ser("test", "--ckpt_path", run / "checkpoints/best.ckpt", "--data", "Synthetic") == 0
    assert Path("runs/cornn_no_conformer-synthetic").is_dir()


def test_segments_are_scored_as_they_were_trained(ser, cache):
    segments = ["--data.preprocess.duration_s", "0.4", "--data.preprocess.segment_hop_s", "0.2"]
    segments += ["--model.segment_scores", "max"]
    assert ser("fit", "--config", CONFIG, *SMALL, *segments) == 0
    best = Path("runs/cornn_no_conformer-synthetic/fold0-seed1/checkpoints/best.ckpt")
    fitted = (best.parents[1] / "predictions.csv").read_text()
    assert ser("test", "--ckpt_path", best, "--data", "Synthetic") == 0
    assert Path("runs/cornn_no_conformer-synthetic/test-fold0-seed1/predictions.csv").read_text() == fitted
