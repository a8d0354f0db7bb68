"""What the configs of all systems have in common, found by themselves."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[1]
SYSTEMS = sorted((REPOSITORY / "configs").glob("*.yaml"))


@pytest.mark.parametrize("config", SYSTEMS, ids=lambda path: path.stem)
def test_running_statistics_keep_up_with_training_unless_the_paper_is_repeated(config):
    plain, overlay = (yaml.safe_load(path.read_text()) for path in (config, config.parent / "paper" / config.name))
    module, _, network = plain["model"]["net"]["class_path"].rpartition(".")
    if "norm_momentum" not in inspect.signature(getattr(importlib.import_module(module), network)).parameters:
        pytest.skip(f"{network} is no Keras network")
    assert plain["model"]["net"]["init_args"]["norm_momentum"] == 0.1
    assert overlay["model"]["net"]["init_args"]["norm_momentum"] == 0.01


def test_the_systems_page_names_every_system():
    page = (REPOSITORY / "docs/systems.md").read_text()
    assert [path.stem for path in SYSTEMS if f"`{path.stem}`" not in page] == []
