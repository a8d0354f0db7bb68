"""The README does what it says."""

import re
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_notebook_lines_run(cache, tmp_path, monkeypatch, capsys):
    (code,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda _: cache)
    assert "max_epochs=20" in code
    names = {}
    exec(code.replace("max_epochs=20", "max_epochs=1, accelerator='cpu', limit_train_batches=1"), names)
    assert isinstance(names["trainer"], Trainer)
    assert "test/uar" in names["trainer"].callback_metrics
    assert names["trainer"].ckpt_path == names["best"].best_model_path
    assert names["data"].num_classes == 4


def test_ci_runs_the_test_command_of_the_readme():
    command = next(block for block in blocks("sh") if "pytest" in block).strip()
    ci = (REPOSITORY / ".ci/run").read_text()
    _, _, install, test = (part.strip() for part in command.split("&&"))
    assert install.removeprefix("pip install ") in ci
    assert f"\n{test}\n" in ci


@pytest.mark.parametrize("path", re.findall(r"`((?:ser|configs|benchmarks)/[\w/.]*)`", README))
def test_what_is_named_exists(path):
    assert (REPOSITORY / path).exists()
