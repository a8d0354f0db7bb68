"""Networks: one file per paper, all called as `net(features, lengths) -> logits`.

Optional for the task: `any_length`, false if logits depend on how far a batch is padded, so that all batches must be
padded equally; `on_step(step, total_steps)`, called before every step of the optimiser.
"""

from ser.models.acrnn import ACRNN
from ser.models.cnn_lstm import CNN1dLSTM, CNN2dLSTM, TimeDistributedCNNLSTM
from ser.models.cornn import CoRNN
from ser.models.dycnn import DyCNN
from ser.models.mlflb import CRNNmLFLB
from ser.models.raw_crnn import RawCRNN
from ser.models.rescnn import ResCNN

__all__ = [
    "ACRNN",
    "CNN1dLSTM",
    "CNN2dLSTM",
    "CRNNmLFLB",
    "CoRNN",
    "DyCNN",
    "RawCRNN",
    "ResCNN",
    "TimeDistributedCNNLSTM",
]
