"""The shipped sweep files: valid by W&B's own schema, and a trial of each runs as W&B's agent calls it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sweeps.config import SweepConfig, schema_violations_from_proposed_config
from wandb import wandb_agent

import ser.models
import sweeps
from ser.cli import main
from ser.sweep.space import read_sweep

REPOSITORY = Path(__file__).parents[1]
FILES = sorted((REPOSITORY / "sweeps").glob("*.yaml"))
# A few small batches: some networks take a second for sixteen utterances.
QUICK = {
    "--trainer.max_epochs": "1",
    "--trainer.limit_train_batches": "1",
    "--trainer.limit_val_batches": "1",
    "--data.batch_size": "2",
    "--trainer.accelerator": "cpu",
}


def quick(cache):
    return [part for option in QUICK.items() for part in option] + ["--data.cache_dir", str(cache)]


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """Return a function that has W&B's agent run a trial, in a folder with ser's configs."""
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_API_KEY"):  # the agent sets some
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("HOME", str(tmp_path))  # no .netrc
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)

    def run(sweep, further=()):
        (trial,) = sweeps.next_runs(sweep, [], n=1)
        settings = json.loads(json.dumps(trial.config, default=lambda number: number.item()))  # came from the server
        agent = wandb_agent.Agent(api=None, queue=None, sweep_id="sweep1")
        agent._sweep_command = [*sweep["command"], *further]  # as the server returns it
        response = agent._process_command(
            {"type": "run", "run_id": "trial1", "program": sweep["program"], "args": settings}
        )
        assert "exception" not in response
        return settings, agent._run_processes["trial1"]

    return run


class Noted:
    """Stands where the agent's process would: what it was to run is run in this process, which has torch loaded."""

    def __init__(self, command, env, forward_signals):
        self.command = command


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_sweep_file_is_valid_for_wandb_and_for_optuna(file):
    content = yaml.safe_load(file.read_text())
    assert schema_violations_from_proposed_config(content) == []
    assert content["metric"] == {"name": "val/uar", "goal": "maximize"}
    sweep = read_sweep(file)
    assert {*sweep.space, *sweep.constants} == content["parameters"].keys()
    # Bounds and values mean the same to both: W&B's own samples are Optuna's.
    for trial in sweeps.next_runs({**SweepConfig(content), "method": "random"}, [], n=50):
        for name, sample in trial.config.items():
            value = json.dumps(sample["value"]) if isinstance(sample["value"], list) else sample["value"]
            distribution = sweep.space[name]
            assert distribution._contains(distribution.to_internal_repr(value))


def test_every_network_has_a_sweep():
    networks = {yaml.safe_load(path.read_text())["model"]["net"]["class_path"] for path in configs_of_sweeps()}
    assert networks == {f"ser.models.{name}" for name in ser.models.__all__}


def configs_of_sweeps():
    for file in FILES:
        command = yaml.safe_load(file.read_text())["command"]
        yield REPOSITORY / command[command.index("--config") + 1]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_a_trial_runs_as_the_agent_calls_it(file, agent, cache, tmp_path, monkeypatch):
    monkeypatch.setattr(wandb_agent, "AgentProcess", Noted)
    settings, process = agent(yaml.safe_load(file.read_text()))
    assert process.command[:2] == ["ser", "fit"]
    assert main([*process.command[1:], *quick(cache), "--trainer.logger", "false"]) == 0

    (run,) = tmp_path.glob("runs/*/*")
    assert {path.name for path in run.iterdir()} >= {"history.csv", "metrics.json", "protocol.json"}
    assert not (run / "predictions.csv").exists()  # a trial does not look at the test speaker
    fitted = flat(yaml.safe_load((run / "config.yaml").read_text()))
    for name, setting in settings.items():
        if f"--{name}" not in QUICK:
            assert fitted[name] == setting["value"]


def flat(settings, name=""):
    """Return the settings of a config by their names on the command line."""
    if not isinstance(settings, dict) or not settings:
        return {name: settings}
    within = name.removesuffix(".init_args")
    return {k: v for key, value in settings.items() for k, v in flat(value, f"{within}.{key}".lstrip(".")).items()}


@pytest.mark.slow
def test_the_agent_s_process_tracks_the_trial_for_the_sweep(agent, cache, tmp_path):
    small = ["--model.net.lstm_hidden", "8", "--model.net.num_blocks", "1", "--model.net.conv_kernel", "7"]
    unsteady = ["--optimizer.lr", "0.03", "--data.batch_size", "48", "--trainer.max_epochs", "4"]
    fixed = [*small, *unsteady, "--model.net.dropout", "0", "--trainer.accelerator", "cpu", "--data.cache_dir", cache]
    sweep = yaml.safe_load((REPOSITORY / "sweeps/cornn.yaml").read_text())
    settings, process = agent(sweep, map(str, fixed))
    assert process.wait() == 0

    (run,) = tmp_path.glob("runs/*/*")
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    wandb = Path(sys.executable).with_name("wandb")
    read = subprocess.run([wandb, "leet", "inspect", "--json", log], capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in read.stdout.splitlines()]
    (started,) = [record["run"] for record in records if "run" in record]
    assert (started["run_id"], started["sweep_id"]) == ("trial1", "sweep1")
    assert {name: started["config"]["update"][name] for name in settings} == {
        n: s["value"] for n, s in settings.items()
    }

    # What the sweep goes by is the best epoch, whose checkpoint is kept, not the last.
    uar = [record["history"]["item"]["val/uar"] for record in records if "val/uar" in str(record.get("history"))]
    summary = [record["summary"]["update"]["val/uar"] for record in records if "val/uar" in str(record.get("summary"))]
    assert len(uar) == 4
    assert summary[-1] == pytest.approx(max(uar))
    assert summary[-1] > uar[-1]
