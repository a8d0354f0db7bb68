"""Several processes of one job, which Lightning, torchrun or SLURM start and watch."""

import os
import traceback

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer
from torch import distributed

from ser.errors import JobEnded, UserError

RESUME = "To resume after the last complete epoch, repeat the command with --ckpt_path last."
COLLECTIVES = ("torch.distributed.", "torch.autograd.")  # modules whose calls exchange tensors with other processes


def slurm() -> list[SLURMEnvironment]:
    """Return Lightning's plugin for SLURM if that has started this process.

    A job that SLURM has requeued resumes by ``--ckpt_path last``. Lightning's own requeueing would leave a checkpoint
    that every run of the experiment would resume from.

    Raises:
        UserError: The job was not started in a way that Lightning supports.
    """
    try:
        return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    except RuntimeError as error:
        raise UserError(str(error)) from error


def check_number_of_processes(trainer: Trainer) -> None:
    """Compare devices and nodes with what torchrun or SLURM has started.

    Raises:
        UserError: The numbers differ.
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
    """Return the message for an error that an exchange with another process of the job has raised, None for others.

    Backends raise errors of different classes and texts where a process no longer answers; they have in common that
    they come out of a collective operation.
    """
    if not (isinstance(error, RuntimeError) and distributed.is_available() and distributed.is_initialized()):
        return None
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if distributed.get_world_size() == 1 or not f"{frame.f_globals['__name__']}.".startswith(COLLECTIVES):
        return None
    reason, _, _ = str(error).partition("\n")
    return JobEnded(
        f"Rank {distributed.get_rank()} cannot reach another process of this job, which was killed or ended by an "
        f"error of its own: {reason}. {RESUME}"
    )
