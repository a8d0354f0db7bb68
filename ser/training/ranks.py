"""Several processes of one job, on one machine or on many: they end together, and with a message that says why."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from ser.errors import JobEnded, UserError

LOOK_EVERY_S = 0.2
RESUME = "The same command with --ckpt_path last goes on after the last whole epoch."
# How gloo, NCCL and the store of addresses say that another process no longer answers.
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket Timeout", "Connection refused")


class Peers(Callback):
    """Watches the processes that Lightning starts for the devices of a machine, and the one that started this one.

    Without it Lightning kills the job of a killed process, too, but silently and up to five seconds later; and where
    the starting process is killed, the others may wait for it in a collective operation for half an hour. Processes
    that torchrun or SLURM have started are watched by these.
    """

    def __init__(self) -> None:
        self.leader = os.getppid() if _started_by_lightning() else None
        self.failed = False

    def watch(self, trainer: Trainer) -> None:
        """Begin, if there is more than one process."""
        if trainer.world_size > 1:
            threading.Thread(target=self._watch, args=(trainer,), daemon=True, name="peers").start()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Be the only one to watch, now that Lightning has started the processes."""
        take_over(trainer.strategy.launcher)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the processes that this one has started, which would wait for it."""
        if lost_peer(exception):
            time.sleep(3 * LOOK_EVERY_S)  # whoever watches knows better who was lost
        self.failed = True
        for process in _started(trainer):
            process.kill()

    def _watch(self, trainer: Trainer) -> None:
        while not self.failed:
            time.sleep(LOOK_EVERY_S)
            if self.leader is not None and os.getppid() != self.leader and not trainer.state.finished:
                self._end(trainer, "Rank 0 of this job is gone: it was killed, or ended by an error.")
            for rank, process in enumerate(_started(trainer), start=1):
                if process.poll() and not self.failed and not trainer.received_sigterm:
                    self._end(trainer, f"Rank {rank} of this job {_fate(process.returncode)}.")

    def _end(self, trainer: Trainer, why: str) -> None:
        print(f"ser: error: {why} {RESUME}", file=sys.stderr, flush=True)
        for process in _started(trainer):
            process.kill()
        # Not by an exception: this process may wait for the lost one in an operation that nothing interrupts.
        os._exit(1)


def take_over(launcher: Any) -> None:
    """Leave Lightning's own observer nothing to watch: where it looks first, it kills this process without a message.

    It ends by itself when its list is empty; the launcher keeps the processes in another, for its own signals.
    """
    observed = getattr(launcher, "procs", None)
    if observed:
        launcher.procs = list(observed)
        observed.clear()


def _started(trainer: Trainer) -> Sequence[subprocess.Popen[bytes]]:
    """Return the processes that Lightning has started from this one."""
    return getattr(trainer.strategy.launcher, "procs", ())


def slurm() -> list[SLURMEnvironment]:
    """Return what tells Lightning that SLURM has started this process, if it has.

    A job that SLURM queues again goes on by ``--ckpt_path last``. Lightning's own way of queueing it would leave a
    checkpoint where every run of the experiment would take it for its own.

    Raises:
        UserError: The job was not started as Lightning understands it.
    """
    try:
        return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    except RuntimeError as error:
        raise UserError(str(error)) from error


def refuse_other_number_of_processes(trainer: Trainer) -> None:
    """Hold devices and nodes against what torchrun or SLURM has started.

    Raises:
        UserError: They are not as many.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is None:
        return
    devices, nodes = trainer.num_devices, trainer.num_nodes
    try:
        environment.validate_settings(num_devices=devices, num_nodes=nodes)
    except ValueError as error:
        started = os.environ.get("SLURM_NTASKS") or os.environ.get("WORLD_SIZE")
        raise UserError(
            f"{started} processes were started, but {nodes} node{'s' * (nodes > 1)} with {devices} "
            f"device{'s' * (devices > 1)} each were asked for: --trainer.num_nodes must be the number of nodes, and "
            "--trainer.devices the number of processes on each."
        ) from error


def lost_peer(error: BaseException) -> JobEnded | None:
    """Tell whether an error means that another process of the job is gone, and say so in a message."""
    if not (isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)):
        return None
    rank = getattr(rank_zero_only, "rank", 0)
    return JobEnded(
        f"Rank {rank} has lost the connection to another process of this job, which was killed, or ended by an error "
        f"of its own. {RESUME}"
    )


def _started_by_lightning() -> bool:
    """Tell whether this is a further process of a machine, which Lightning's first one has started."""
    others = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID")
    return os.environ.get("LOCAL_RANK", "0") != "0" and not any(name in os.environ for name in others)


def _fate(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL), probably because memory ran out"
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}; see what it said"
