"""Every shipped config fits on the embedded corpus, exactly as the command line reads it."""

import json
import shutil
from pathlib import Path

import pytest

from ser.cli import main
from ser.corpora import Synthetic

CONFIGS = Path(__file__).parents[1] / "configs"
SYSTEMS = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(CONFIGS.glob("paper/*.yaml"))
# A few small batches of each side: some networks take a second for sixteen utterances.
QUICK = {
    "--trainer.max_epochs": "1",
    "--trainer.limit_train_batches": "2",
    "--trainer.limit_val_batches": "1",
    "--trainer.limit_test_batches": "2",
    "--data.batch_size": "2",
    "--trainer.logger": "false",
    "--trainer.accelerator": "cpu",
}


@pytest.fixture(scope="module")
def places(cache, tmp_path_factory):
    """The options of a quarter of the corpus, every speaker, emotion and recording, and of its cache."""
    root = tmp_path_factory.mktemp("corpus")
    for path in Synthetic(cache_dir=cache).locate().glob("*_s[12]_*_r1.wav"):
        shutil.copy(path, root)
    return ["--data.root", str(root), "--data.cache_dir", str(cache)]


def fit(places, *configs):
    paths = [option for config in configs for option in ("--config", str(config))]
    quick = [part for option in QUICK.items() for part in option]
    return main(["fit", *paths, *quick, *places])


@pytest.mark.parametrize("config", SYSTEMS, ids=lambda path: path.stem)
def test_a_config_fits_an_epoch(config, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(places, config) == 0
    run = tmp_path / f"runs/{config.stem}-synthetic/fold0-seed1"  # the config names its system after itself
    assert json.loads((run / "metrics.json").read_text())["test"]["utterances"] == 4


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_lies_over_its_system(overlay, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(places, CONFIGS / overlay.name, overlay) == 0
    assert (tmp_path / f"runs/{overlay.stem}_paper-synthetic/fold0-seed1/predictions.csv").exists()


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_leaves_the_corpus_alone(overlay):
    assert "ser.corpora" not in overlay.read_text()


def test_there_is_a_config_for_every_system():
    systems = {path.stem for path in SYSTEMS}
    assert len(systems) == 19
    assert {path.stem for path in OVERLAYS} == systems
