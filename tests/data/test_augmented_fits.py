"""Augmentation as a user asks for it: in a config, from the command line."""

import csv
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from ser.cli import main

CONFIG = str(Path(__file__).parents[2] / "configs/cornn.yaml")
SMALL = ["--model.net.lstm_hidden", "8", "--model.net.ffn_factor", "1", "--trainer.max_epochs", "1"]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.logger", "false"]


@pytest.fixture
def fit(tmp_path, make_corpus, monkeypatch):
    """Return a function that fits the tiny corpus with an overlay, in an empty folder; it returns the exit code."""
    root = make_corpus()
    files = sorted(root.glob("*.wav"))
    lines = ["file,emotion,speaker", *(",".join((f.name, *f.stem.split("_")[1::-1])) for f in files)]
    (root / "table.csv").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ser"])

    def call(overlay, *options):
        Path("overlay.yaml").write_text(overlay)
        corpus = ["--data", "Table", "--data.root", str(root), "--data.cache_dir", "cache"]
        return main(["fit", "--config", CONFIG, *SMALL, *QUIET, *corpus, "--config", "overlay.yaml", *options])

    return call


COPIES = """
data:
  init_args:
    augment:
      class_path: ser.data.Augment
      init_args:
        copies:
          - class_path: audiomentations.TimeStretch
            init_args: {min_rate: 1.1, max_rate: 1.1, leave_length_unchanged: false, p: 1.0}
          - class_path: ser.data.PeakNoise
            init_args: {max_share: 0.1, p: 1.0}
"""
ONLINE = """
data:
  init_args:
    augment:
      online:
        - class_path: PitchShift
          init_args: {min_semitones: -1.0, max_semitones: 1.0}
"""


def table(path):
    with path.open() as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(("overlay", "options"), [(COPIES, []), (ONLINE, ["--data.preprocess.segment_hop_s", "1.5"])])
def test_a_checkpoint_of_an_augmented_fit_recognises_recordings_as_they_are(fit, overlay, options, tmp_path):
    assert fit(overlay, *options) == 0
    (run,) = Path("runs").glob("*/fold0-seed1")
    augment = json.loads((run / "protocol.json").read_text())["augment"]["init_args"]
    assert len(augment["copies"]) == (2 if overlay is COPIES else 0)
    assert len(augment["online"]) == (1 if overlay is ONLINE else 0)

    best = run / "checkpoints/best.ckpt"
    front_end = torch.load(best, weights_only=True)["front_end"]
    assert front_end.keys() == {"preprocess", "features"}
    tested = table(run / "predictions.csv")
    (tmp_path / "recordings").mkdir()
    for file in tested:
        shutil.copy(tmp_path / "tiny" / file, tmp_path / "recordings")
    recordings = ["--data", "AudioFolder", "--data.root", "recordings", "--data.cache_dir", "another"]
    assert main(["predict", *QUIET, "--ckpt_path", str(best), *recordings]) == 0
    (written,) = Path("runs").glob("*/predict-*/predictions.csv")
    recognised = table(written)
    assert recognised.keys() == tested.keys()
    for file, row in recognised.items():
        assert float(row["p_anger"]) == pytest.approx(float(tested[file]["p_anger"]), abs=1e-5)


def with_transform(name, arguments="p: 1.0"):
    return (
        COPIES[: COPIES.index("          - class")]
        + f"          - class_path: {name}\n            init_args: {{{arguments}}}\n"
    )


BAD = {
    "misspelt transform": (with_transform("audiomentations.TimeStrech"), "Did you mean 'TimeStretch'?"),
    "no transform": (with_transform("torch.nn.ReLU", ""), "torch.nn.ReLU is not a subclass of BaseWaveformTransform"),
    "misspelt argument": (with_transform("audiomentations.TimeStretch", "min_rat: 1"), "Did you mean 'min_rate'?"),
    "argument that the library rejects": (
        with_transform("audiomentations.TimeStretch", "min_rate: 20, max_rate: 20, p: 1.0"),
        "Could not construct TimeStretch(min_rate=20.0, max_rate=20.0, p=1.0): ",
    ),
    "argument that the library rejects without a message": (
        with_transform("audiomentations.Gain", "p: 2.0"),
        "Could not construct Gain(p=2.0): an argument is out of range",
    ),
    "folder of noises that is not there": (
        with_transform("audiomentations.AddBackgroundNoise", "sounds_path: nowhere, p: 1.0"),
        "Could not construct AddBackgroundNoise(sounds_path=nowhere, p=1.0): ",
    ),
    "argument that we reject": (with_transform("ser.data.PeakNoise", "max_share: -1, p: 1.0"), "max_share is -1.0"),
    "stretching that no seed decides": (
        with_transform("audiomentations.TimeStretch", "min_rate: 0.4, p: 1.0"),
        "TimeStretch(min_rate=0.4): below 0.5, the method signalsmith_stretch ignores the seed",
    ),
    "copies that may come out unchanged": (with_transform("audiomentations.TimeStretch", ""), "give p: 1.0"),
    "copies and online": (
        COPIES + "        online: [{class_path: ser.data.PeakNoise}]\n",
        "augment has copies and online transforms; give only one of them",
    ),
    "misspelt mode": (ONLINE.replace("online", "onlin"), "Did you mean 'online'?"),
    "misspelt sampling": (
        "data: {init_args: {sampling: balancd}}",
        "sampling: expected one of ['shuffle', 'balanced']",
    ),
    "hop of nothing": ("data: {init_args: {preprocess: {segment_hop_s: 1.0e-5}}}", "less than one sample at 16000 Hz"),
}


@pytest.mark.parametrize(("overlay", "message"), BAD.values(), ids=BAD.keys())
def test_bad_settings_are_rejected_in_one_message(fit, capsys, overlay, message):
    assert fit(overlay) == 2
    printed = capsys.readouterr().err
    assert printed.count("ser: error: ") == 1
    assert "Traceback" not in printed
    assert message in printed
    assert not Path("runs").exists()


@pytest.mark.skipif(find_spec("numpy_audio_limiter") is not None, reason="the package is installed")
@pytest.mark.parametrize("mode", ["copies", "online"])
def test_a_package_that_is_not_installed_is_named(fit, capsys, mode):
    assert fit(with_transform("audiomentations.Limiter").replace("copies", mode)) == 2
    assert "ser: error: Limiter needs a package that is not installed" in capsys.readouterr().err
    assert not Path("runs").exists()
