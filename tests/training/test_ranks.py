"""Fits of several processes, on the devices of a machine and on two nodes that meet on the loopback."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ser.cli import main
from ser.errors import UserError
from ser.training.ranks import check_number_of_processes, slurm

CONFIG = Path(__file__).parents[2] / "configs/cornn.yaml"
# Without batch statistics, dropout and the conformer an epoch takes a fraction of a second.
SMALL = ["--model.net.lstm_hidden", "4", "--model.net.use_conformer", "false", "--model.net.dropout", "0"]
OPTIONS = ["--trainer.accelerator", "cpu", "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]
OVERLAY = """
data:
  init_args:
    sampling: balanced
    augment:
      class_path: ser.data.Augment
      init_args:
        online:
          - class_path: audiomentations.Gain
            init_args: {min_gain_db: -12.0, max_gain_db: 12.0, p: 1.0}
"""


class Job:
    """A fit of two processes that share a batch of 24 utterances."""

    def __init__(self, launcher, folder, arguments):
        ddp = ["--trainer.strategy", "ddp", "--data.batch_size", "12"]
        arguments = ["-m", "ser", *arguments, *ddp]
        if launcher == "devices":
            commands = [[sys.executable, *arguments, "--trainer.devices", "2"]]
        else:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                meeting = f"127.0.0.1:{free.getsockname()[1]}"
            nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", meeting]
            torchrun = [sys.executable, "-m", "torch.distributed.run", *nodes, "--rdzv-id", "1"]
            arguments += ["--trainer.num_nodes", "2", "--trainer.devices", "1"]
            commands = [[*torchrun, "--node-rank", str(rank), *arguments] for rank in range(2)]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.processes = [
                subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT) for command in commands
            ]

    def codes(self):
        return [process.wait(timeout=120) for process in self.processes]

    def workers(self):
        """Return the processes of ranks that others have started."""
        children = [Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split() for p in self.processes]
        return [int(pid) for pids in children for pid in pids]

    def kill(self):
        for process in self.processes:
            process.kill()


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes to kill in /proc")
@pytest.mark.parametrize("launcher", ["devices", "nodes"])
def test_a_job_whose_process_is_killed_resumes_to_what_one_process_learns(launcher, cache, tmp_path, monkeypatch):
    """With online augmentation and balanced sampling, which must not depend on which process draws what."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "overlay.yaml").write_text(OVERLAY)
    arguments = ["fit", "--config", str(CONFIG), "--config", "overlay.yaml", *SMALL, *OPTIONS]
    arguments += ["--data.cache_dir", str(cache), "--early_stopping.patience", "9999"]
    endless = Job(launcher, tmp_path, [*arguments, "--trainer.max_epochs", "9999"])
    run = tmp_path / "runs/cornn-synthetic/fold0-seed1"
    last = run / "checkpoints/last.ckpt"
    try:
        deadline = time.monotonic() + 120
        while not last.exists():
            assert all(process.poll() is None for process in endless.processes), endless.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(endless.workers()[-1], signal.SIGKILL)
        codes = endless.codes()
    finally:
        endless.kill()
    printed = endless.log.read_text()
    if codes == [-signal.SIGKILL]:  # Lightning looks every 5 s for killed processes, and kills the first one, too
        assert launcher == "devices"
    else:
        assert codes == [1] * len(codes)
        assert printed.count("ser: error: Rank ") == 1
        assert "cannot reach another process of this job" in printed
        assert "To resume after the last complete epoch, repeat the command with --ckpt_path last." in printed
    assert not (run / "metrics.json").exists()

    epochs = torch.load(last, weights_only=True)["epoch"] + 3  # two more
    arguments += ["--trainer.max_epochs", str(epochs)]
    resumed = Job(launcher, tmp_path, [*arguments, "--ckpt_path", "last"])
    assert resumed.codes() == [0] * len(resumed.processes), resumed.log.read_text()
    assert [path.name for path in run.parent.iterdir()] == [run.name]
    monkeypatch.setattr(sys, "argv", ["ser"])
    assert main([*arguments, "--run.name", "alone", "--data.batch_size", "24"]) == 0
    alone = run.with_name("alone")
    ours, others = (rows(folder / "predictions.csv") for folder in (run, alone))
    assert [row["file"] for row in ours] == [row["file"] for row in others]
    assert len(ours) == 24
    for name in ours[0]:
        if name.startswith("p_"):
            ours_p, others_p = ([float(row[name]) for row in predicted] for predicted in (ours, others))
            np.testing.assert_allclose(ours_p, others_p, atol=1e-3)
    ours, others = (rows(folder / "history.csv") for folder in (run, alone))
    assert len(ours) == len(others) == epochs
    for score in ("train/loss", "val/loss"):
        ours_were, others_were = ([float(row[score]) for row in history] for history in (ours, others))
        np.testing.assert_allclose(ours_were, others_were, atol=1e-3)
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (run, alone)]
    assert [part["fit"]["processes"] for part in metrics] == [2, 1]
    assert metrics[0]["test"]["confusion"] == metrics[1]["test"]["confusion"]


SLURM = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "ser", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}


@pytest.fixture
def on_slurm(monkeypatch):
    """The environment of a task that srun has started."""
    ranks = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "2"}
    for name, value in (SLURM | ranks).items():
        monkeypatch.setenv(name, value)


def test_a_slurm_job_is_not_queued_again_by_lightning(on_slurm):
    """It would resume from a checkpoint that belongs to no run."""
    assert [environment.auto_requeue for environment in slurm()] == [False]


def test_outside_of_slurm_there_is_nothing_to_say(monkeypatch):
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    assert slurm() == []


@pytest.mark.parametrize(("devices", "nodes"), [(4, 1), (1, 2)])
def test_devices_and_nodes_must_be_what_slurm_started(devices, nodes, on_slurm, make_trainer):
    trainer = make_trainer(1, devices=devices, num_nodes=nodes, strategy="ddp", plugins=slurm())
    with pytest.raises(UserError, match=f"4 processes were started, but {nodes} node.* {devices} device"):
        check_number_of_processes(trainer)


def test_devices_and_nodes_that_are_as_started_are_taken(on_slurm, make_trainer):
    check_number_of_processes(make_trainer(1, devices=2, num_nodes=2, strategy="ddp", plugins=slurm()))
    check_number_of_processes(make_trainer(1))
