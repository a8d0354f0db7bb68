"""Learning-rate schedules that PyTorch lacks."""

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ser.errors import UserError


class InverseTimeDecay(LRScheduler):
    """lr_t = lr_0 / (1 + decay t), with t the optimiser's steps: the ``decay`` of Keras's optimisers before 2.11.

    It counts its own steps: with ``--model.lr_scheduler_interval step`` these are the optimiser's.

    Args:
        optimizer: The optimiser.
        decay: Growth per step of the inverse learning rate, relative to its initial value.
        last_epoch: Steps already taken, less one.

    Raises:
        UserError: The decay is negative.
    """

    def __init__(self, optimizer: Optimizer, decay: float = 1e-6, last_epoch: int = -1) -> None:
        if decay < 0:
            raise UserError(f"decay is {decay}; it must be 0 or positive.")
        self.decay = decay
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of every group of parameters."""
        return [initial / (1 + self.decay * self.last_epoch) for initial in self.base_lrs]
