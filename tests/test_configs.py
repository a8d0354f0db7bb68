"""Every shipped config fits on the embedded corpus, exactly as the command line reads it."""

import json
from pathlib import Path

import pytest

from ser.cli import main

CONFIGS = Path(__file__).parents[1] / "configs"
SYSTEMS = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(CONFIGS.glob("paper/*.yaml"))


def fit(cache, *configs):
    few = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "0.3"]
    paths = [option for config in configs for option in ("--config", str(config))]
    quick = [*few, "--trainer.logger", "false", "--trainer.accelerator", "cpu", "--data.cache_dir", str(cache)]
    return main(["fit", *paths, *quick])


@pytest.mark.parametrize("config", SYSTEMS, ids=lambda path: path.stem)
def test_a_config_fits_an_epoch(config, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(cache, config) == 0
    run = tmp_path / f"runs/{config.stem}-synthetic/fold0-seed1"  # the config names its system after itself
    assert json.loads((run / "metrics.json").read_text())["test"]["utterances"] == 24


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_an_overlay_lies_over_its_system(overlay, cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit(cache, CONFIGS / overlay.name, overlay) == 0
    assert (tmp_path / f"runs/{overlay.stem}_paper-synthetic/fold0-seed1/predictions.csv").exists()


def test_there_are_configs():
    assert {"cornn", "cornn_no_bilstm", "cornn_no_conformer"} <= {path.stem for path in SYSTEMS}
    assert {path.name for path in OVERLAYS} <= {path.name for path in SYSTEMS}
