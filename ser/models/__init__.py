"""Networks: one file per paper, all called as `net(features, lengths) -> logits`."""

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
