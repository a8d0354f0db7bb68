"""Seconds per epoch: a fit with ser and Lightning, against a bare PyTorch loop over the same batches.

    python benchmarks/training_loop.py [--hidden 128] [--epochs 3] [--repetitions 3]

Both train the same CoRNN on the embedded corpus and score the validation speaker after every epoch; the fit also
keeps UAR, WA and macro-F1. They take turns, and the fastest repetition of each counts, so that it matters less what
else the machine does. A small ``--hidden`` makes the network cheap and so shows what the framework costs.
"""

import argparse
import logging
import time
import warnings

import torch
from lightning.pytorch import Trainer, seed_everything
from torch.nn import functional as F

from ser.corpora import Synthetic
from ser.data import LogMel
from ser.models import CoRNN
from ser.training.task import EmotionClassifier


def task_of(data: Synthetic, hidden: int) -> EmotionClassifier:
    """Return the same untrained task every time."""
    seed_everything(1, verbose=False)
    return EmotionClassifier(CoRNN(data.num_classes, data.feature_shape, lstm_hidden=hidden), data.labels)


def fit(data: Synthetic, hidden: int, epochs: int) -> float:
    """Train with the toolkit; seconds."""
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    task = task_of(data, hidden)
    start = time.perf_counter()
    trainer.fit(task, data)
    return time.perf_counter() - start


def bare(data: Synthetic, hidden: int, epochs: int) -> float:
    """Train with nothing but PyTorch; seconds."""
    task = task_of(data, hidden)
    start = time.perf_counter()
    task.feature_mean, task.feature_sigma = data.statistics()
    optimizer = torch.optim.Adam(task.parameters())
    train, val = data.train_dataloader(), data.val_dataloader()
    for _ in range(epochs):
        task.train()
        for batch in train:
            optimizer.zero_grad()
            F.cross_entropy(task(batch.features, batch.lengths), batch.targets).backward()
            optimizer.step()
        task.eval()
        with torch.inference_mode():
            for batch in val:
                F.cross_entropy(task(batch.features, batch.lengths), batch.targets)
    return time.perf_counter() - start


def main() -> None:
    """Time both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = Synthetic(features=LogMel(deltas=2), batch_size=40, padding="batch")
    data.prepare_data()
    bare(data, options.hidden, 1)  # warm up
    pairs = [
        (fit(data, options.hidden, options.epochs), bare(data, options.hidden, options.epochs))
        for _ in range(options.repetitions)
    ]
    ours, theirs = (min(times) / options.epochs for times in zip(*pairs, strict=True))
    print(f"ser {ours:.3f} s per epoch, bare loop {theirs:.3f} s: ratio {ours / theirs:.3f}")


if __name__ == "__main__":
    main()
