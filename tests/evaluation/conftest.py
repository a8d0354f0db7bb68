"""Run folders of made-up predictions, for whatever reads run folders."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.special import softmax

from ser.runs.folder import Evaluation, table_as_csv

LABELS = ["anger", "sadness", "happiness", "neutral"]
GENDERS = {"ann": "female", "bob": "male", "cat": "female", "dan": "male"}


def _evaluation(random: np.random.Generator, speaker: str, labels: list[str], count: int, skill: float) -> Evaluation:
    targets = random.integers(0, len(labels), count)
    logits = random.normal(size=(count, len(labels)))
    logits[np.arange(count), targets] += skill
    return Evaluation(
        labels=labels,
        files=[f"{speaker}/{labels[target]}{number}.wav" for number, target in enumerate(targets)],
        speakers=[speaker] * count,
        targets=targets,
        probabilities=softmax(logits, axis=1),
    )


def run_writer(root: Path) -> Callable[..., Path]:
    """Return a function that writes the folder of a finished run below a folder, and returns it."""

    def write(
        experiment: str = "cornn-made",
        fold: int = 0,
        seed: int = 1,
        *,
        name: str | None = None,
        system: str = "cornn",
        labels: list[str] = LABELS,
        genders: dict[str, str | None] = GENDERS,
        count: int = 40,
        skill: float = 2.0,
        lr: float = 1e-3,
        fingerprint: str = "",
        sampling: str = "shuffle",
        limit_train_batches: float | None = None,
        **protocol: object,
    ) -> Path:
        speakers = list(genders)
        # What is tested, and how hard it is, depends on the fold alone.
        test = _evaluation(np.random.default_rng([fold, 0]), speakers[fold], labels, count, skill)
        val = _evaluation(np.random.default_rng([fold, 1]), speakers[fold - 1], labels, count, skill)
        path = root / "runs" / experiment / (name or f"fold{fold}-seed{seed}")
        path.mkdir(parents=True)
        described = {
            "corpus": "Made",
            "root": str(root / "corpus"),
            "synthetic": False,
            "licence": "CC0",
            "labels": labels,
            "merge": {},
            "fingerprint": fingerprint or f"of fold {fold}",
            "front_end": {
                "preprocess": {"top_db": 60.0},
                "features": {"class_path": "ser.features.spectra.LogMel", "init_args": {"n_mels": 40}},
            },
            "left_out": [],
            "found_and_published": {label: [count, None] for label in labels},
            "genders": genders,
            "protocol": {
                "class_path": "ser.protocols.splits.LeaveOneSpeakerOut",
                "init_args": {"validation_speaker": None},
            },
            "fold": fold,
            "tests": speakers[fold],
            "speaker_disjoint": True,
            "test_is_validation": False,
            "notes": [],
            "train": {"utterances": 2 * count, "speakers": speakers[:2]},
            "val": {"utterances": count, "speakers": [speakers[fold - 1]]},
            "test": {"utterances": count, "speakers": [speakers[fold]]},
            **protocol,
        }
        config = {
            "seed_everything": seed,
            "run": {"system": system},
            "model": {"net": {"class_path": "ser.models.CoRNN"}},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": lr}},
            "data": {"class_path": "ser.corpora.Table", "init_args": {"fold": fold, "sampling": sampling}},
            "trainer": {"max_epochs": 3, "limit_train_batches": limit_train_batches},
            "checkpoint": {"monitor": "val/uar"},
            "test_checkpoint": "best",
        }
        fit = {"epochs": 3, "seconds_per_epoch": 1.5, "trainable_parameters": 1234, "device": "cpu", "precision": "32"}
        metrics = {
            "val": {"best_epoch": 1, **val.scores()},
            "fit": fit,
            "test": {"checkpoint": "best.ckpt", **test.scores()},
            "fingerprint": described["fingerprint"],
        }
        history = [[epoch, 1.5, 1.4 - epoch / 5, 0.3 + epoch / 10, 1.2 - epoch / 5, 0.5] for epoch in range(3)]
        columns = ["epoch", "seconds", "val/loss", "val/uar", "train/loss", "train/uar"]
        (path / "protocol.json").write_text(json.dumps(described))
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        (path / "metrics.json").write_text(json.dumps(metrics))
        (path / "history.csv").write_bytes(table_as_csv(columns, history))
        (path / "validation.csv").write_bytes(val.csv())
        (path / "predictions.csv").write_bytes(test.csv())
        return path

    write.root = root / "runs"
    return write


@pytest.fixture
def write_run(tmp_path) -> Callable[..., Path]:
    """Return a function that writes the folder of a finished run, a fold of leave one speaker out, and returns it.

    Its attribute ``root`` is the folder of the experiments.
    """
    return run_writer(tmp_path)


@pytest.fixture(scope="module")
def write_module_run(tmp_path_factory) -> Callable[..., Path]:
    """Return the same for runs that all tests of a module read."""
    return run_writer(tmp_path_factory.mktemp("module"))
