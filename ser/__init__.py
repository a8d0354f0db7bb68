"""Speech emotion recognition on PyTorch Lightning, with speaker-disjoint evaluation."""

__version__ = "0.1.0"
