"""Every shipped config fits on the embedded corpus, exactly as the command line reads it."""

import json
from pathlib import Path

import pytest

from ser.cli import main

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


def fit(cache, *configs):
    paths = [option for config in configs for option in ("--config", str(config))]
    quick = [part for option in QUICK.items() for part in option]
    return main(["fit", *paths, *quick, "--data.cache_dir", str(cache)])


@pytest.mark.parametrize("config", SYSTEMS, ids=lambda path: path.stem)
def test_a_config_fits_an_epoch(config, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(cache, config) == 0
    run = tmp_path / f"runs/{config.stem}-synthetic/fold0-seed1"  # the config names its system after itself
    assert json.loads((run / "metrics.json").read_text())["test"]["utterances"] == 4


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_lies_over_its_system(overlay, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(cache, CONFIGS / overlay.name, overlay) == 0
    assert (tmp_path / f"runs/{overlay.stem}_paper-synthetic/fold0-seed1/predictions.csv").exists()


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_leaves_the_corpus_alone(overlay):
    assert "ser.corpora" not in overlay.read_text()


def test_there_is_a_config_for_every_system():
    systems = {path.stem for path in SYSTEMS}
    assert len(systems) == 19
    assert {path.stem for path in OVERLAYS} == systems
