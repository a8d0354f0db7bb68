"""The guide for developers, followed to the letter."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from ser.cli import main
from ser.corpora import Synthetic

GUIDE = (Path(__file__).parents[1] / "docs/developing.md").read_text()
MODULES = dict(re.findall(r"`(my_\w+)\.py`.*?```python\n(.*?)```", GUIDE, re.DOTALL))


@pytest.fixture
def fit(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, code in MODULES.items():
        monkeypatch.delitem(sys.modules, name, raising=False)
        Path(f"{name}.py").write_text(code)
    command = re.search(r"```sh\nser (fit .*?)```", GUIDE, re.DOTALL)[1]
    places = ["--trainer.logger", "false", "--trainer.accelerator", "cpu", "--data.cache_dir", str(cache)]
    return lambda *options: main([*shlex.split(command), *places, *map(str, options)])


def test_a_network_of_ones_own(fit):
    assert fit() == 0
    assert Path("runs/mean_linear-synthetic/fold0-seed1/predictions.csv").exists()


@pytest.mark.parametrize("option", ["corpus", "features", "protocol"])
def test_everything_else_of_ones_own(fit, cache, option):
    options = {
        "corpus": ["--data", "my_corpus.MyCorpus", "--data.root", Synthetic(cache_dir=cache).locate()],
        "features": ["--data.features", "my_features.Energy"],
        "protocol": ["--data.protocol", "my_protocol.WomenToMen"],
    }[option]
    assert fit(*options) == 0
    (best,) = Path("runs").glob("*/*/checkpoints/best.ckpt")
    again = ["--ckpt_path", best, "--model.net", "my_network.MeanLinear", "--trainer.logger", "false", *options]
    if option != "corpus":
        again += ["--data", "Synthetic"]
    assert main(["test", *map(str, again), "--data.cache_dir", str(cache)]) == 0
