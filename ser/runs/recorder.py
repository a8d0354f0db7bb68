"""The recorder: a callback that writes the run folder and shows results while a run goes on."""

import json
import math
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only
from rich.cells import cell_len
from rich.console import Console
from torch import Tensor

from ser.errors import JobEnded, UserError
from ser.runs.confidence import calibration
from ser.runs.folder import SYNTHETIC, Evaluation, RunFolder, probability_column, table_as_csv
from ser.storage import write_atomically
from ser.terminal.streams import showing
from ser.terminal.tables import PlainTable, side_by_side
from ser.training.checkpoints import sha256_of
from ser.training.corpus import Corpus
from ser.training.ranks import lost_peer

SHOWN_WITHIN_S = 60.0  # a folder that another node has made, on this one


@runtime_checkable
class EvaluationLogger(Protocol):
    """A logger that can show an evaluation."""

    def log_evaluation(self, stage: str, evaluation: Evaluation) -> None:
        """Show the evaluation of a stage ("val" or "test")."""

    def log_predictions(self, stage: str, evaluation: Evaluation, recordings: Mapping[str, Path]) -> None:
        """List what was said of every utterance; ``recordings`` are the paths of its files."""


class RunRecorder(Callback):
    """Writes the run folder, and shows results in the terminal and to loggers that can show them.

    Args:
        run: The folder.
        config: Content of ``config.yaml``, if the run has one.
        source: Content of ``model.json``: the model that a run uses which another one has trained.
    """

    def __init__(self, run: RunFolder, config: str | None = None, source: Mapping[str, Any] | None = None) -> None:
        self.run = run
        self.config = config
        self.source = source
        self._outputs: list[tuple[Tensor, ...]] = []
        self._validated: int | None = None  # the last epoch that was
        self._calibration: dict[str, Any] | None = None  # of the weights as they are
        self._loaded_epoch: int | None = None
        self._history: list[dict[str, float]] = []
        self._epoch_start = 0.0
        self._protocol_json: dict[str, Any] = {}
        self._noted = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Create the folder, once data and settings are known to be good."""
        path = trainer.strategy.broadcast(str(self.run.path) if trainer.is_global_zero else "")
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(Path(path, "checkpoints"))
        if not trainer.is_global_zero:
            _refuse_unshared(Path(path))
        if trainer.is_global_zero and self.config is not None and not (stage != "fit" and self._has("config.yaml")):
            self._write("config.yaml", self.config)

    def _protocol(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> dict[str, Any]:
        """Return what the scores are measured on, and of a foreign model no training on this corpus."""
        data = _corpus(trainer)
        history, notes = getattr(pl_module, "history", []), getattr(pl_module, "notes", [])
        if history and not data.is_fit(history[-1]):
            return data.scored_description("val" if stage == "validate" else "test", notes)
        description = data.protocol_description()
        before = [
            f"The network was trained before on {fit['corpus']}, fold {fit['fold']} (speakers "
            f"{', '.join(fit['speakers']['train'])})."
            for fit in history[:-1]
        ]
        return {**description, "notes": [*description["notes"], *before, *notes]}

    def _note(self, trainer: Trainer) -> None:
        """Say once what has to be known of the input."""
        notes = [] if self._noted else _corpus(trainer).input_notes
        self._noted = True
        with showing("What has to be known of the input"):
            for note in notes:
                print(f"Note: {note}")

    def _describe(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write on what scores are measured, now that it is checked, and with which model."""
        if not trainer.is_global_zero or (stage == "validate" and self._has("history.csv")):
            return
        self._protocol_json = self._protocol(trainer, pl_module, stage)
        self._write("protocol.json", _json(self._protocol_json))
        if stage != "fit" and self.source is not None and not self._has("history.csv"):
            self._write("model.json", _json(self.source))
        if stage != "fit":
            self._note(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write on what is tested."""
        self._describe(trainer, pl_module, "test")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write on what is validated, outside of a fit."""
        if trainer.state.fn == "validate":
            self._describe(trainer, pl_module, "validate")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write with which model recordings are recognised, and which are not."""
        if not trainer.is_global_zero:
            return
        if self.source is not None:
            self._write("model.json", _json(self.source))
        data = _corpus(trainer)
        if left_out := [[data.relative(item.path), item.reason] for item in data.left_out]:
            self._write("left_out.csv", table_as_csv(["file", "reason"], left_out))
        self._note(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is trained on what."""
        self._describe(trainer, pl_module, "fit")
        if trainer.is_global_zero:
            net, summary = getattr(pl_module, "net", pl_module), _corpus(trainer).summary()
            with showing("What is trained"):
                print(f"{type(net).__name__}, {_trainable(pl_module):,} trainable parameters. {summary}", flush=True)
                for warning in _corpus(trainer).audit.warnings:
                    print(f"Note: {warning}")
            self._note(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._calibration = None
        self._epoch_start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: an epoch with its validation. Where no progress bar shows, say how it went.

        Raises:
            JobEnded: The training loss is no number any more.
        """
        seconds = time.perf_counter() - self._epoch_start
        metrics = trainer.callback_metrics  # on every process: to look at them reduces over all
        validated = self._validated == trainer.current_epoch
        measured = ("train/", "val/") if validated else ("train/",)  # else validation's are those of an earlier epoch
        scores = {name: value.item() for name, value in metrics.items() if name.startswith(measured)}
        self._history.append({"epoch": trainer.current_epoch, "seconds": seconds, **scores})
        if trainer.is_global_zero:
            columns = list(dict.fromkeys(name for row in self._history for name in row))
            rows = [[row.get(name, "") for name in columns] for row in self._history]
            self._write("history.csv", table_as_csv(columns, rows))
        with showing("The epoch's scores"):
            if trainer.is_global_zero and not sys.stdout.isatty():
                said = ", ".join(f"{name} {scores[name]:.3f}" for name in ("val/loss", "val/uar") if name in scores)
                print(f"Epoch {trainer.current_epoch}: {said or 'not validated'} ({seconds:.1f} s)", flush=True)
        if not math.isfinite(loss := scores.get("train/loss", 0.0)):
            raise JobEnded(
                f"The training loss is {loss} after epoch {trainer.current_epoch}: the network learns nothing more. "
                "Lower --optimizer.lr, clip gradients (--trainer.gradient_clip_val 1), or train in single precision."
            )

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep what was said of a batch."""
        self._keep(outputs)

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep what was said of a batch."""
        self._keep(outputs)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Keep what was said of a batch."""
        self._outputs.append(tuple(output.cpu() for output in outputs))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Calibrate; outside of a fit's epochs, report."""
        evaluation = self._evaluation(trainer)
        if not trainer.is_global_zero or trainer.sanity_checking or evaluation is None:
            return
        if trainer.state.fn == "fit":
            self._validated = trainer.current_epoch
            self._calibration = calibration(evaluation.probabilities, evaluation.targets)
        elif self._has("history.csv"):  # the checkpoint that this run's fit has chosen
            self._write("validation.csv", evaluation.csv())
            self._keep_scores(trainer, "val", evaluation, best_epoch=self._loaded_epoch)
        else:
            self._report(trainer, "val", evaluation)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write predictions and scores."""
        evaluation = self._evaluation(trainer)
        if trainer.is_global_zero and evaluation is not None:
            self._write("predictions.csv", evaluation.csv())
            self._report(trainer, "test", evaluation)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and show what was recognised."""
        gathered = self._gather(trainer)
        if not trainer.is_global_zero or gathered is None:
            return
        positions, probabilities = gathered
        data = _corpus(trainer)
        columns = zip(positions.tolist(), probabilities.argmax(dim=1).tolist(), probabilities.tolist(), strict=True)
        rows = [[data.relative(data.table[i].path), data.labels[p], *row] for i, p, row in columns]
        header = ["file", "emotion", *map(probability_column, data.labels)]
        self._write("predictions.csv", table_as_csv(header, rows))
        with showing("What was recognised"):
            _print_recognised(data.labels, rows)
            print(f"All {len(rows)} files: {self.run.path / 'predictions.csv'}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the calibration: what averages weights replaces them now, and they are saved once more."""
        self._calibration = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what training took."""
        if trainer.is_global_zero:
            self._write_scores(fit=self._fit_summary(trainer, pl_module))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say how an interrupted fit goes on."""
        explained = isinstance(exception, UserError | JobEnded) or lost_peer(exception)
        resumable = trainer.state.fn == "fit" and self.run.reserved and self._has("checkpoints/last.ckpt")
        if trainer.is_global_zero and resumable and not explained:
            print(f"\nInterrupted; the same command with --ckpt_path last goes on in {self.run.path}.", file=sys.stderr)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add :func:`ser.runs.confidence.calibration` of the epoch's validation; None where there was none."""
        checkpoint["calibration"] = self._calibration

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Remember the checkpoint's epoch."""
        self._loaded_epoch = checkpoint["epoch"]

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed fit needs: the scores of every epoch, and the clock."""
        return {"history": self._history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._history = list(state_dict["history"])

    def _keep(self, outputs: Mapping[str, Tensor]) -> None:
        self._outputs.append(tuple(outputs[name].cpu() for name in ("positions", "probabilities", "targets")))

    def _gather(self, trainer: Trainer) -> tuple[Tensor, ...] | None:
        """Join the batches of all processes, in the order of the utterances."""
        batches, self._outputs = self._outputs, []
        joined = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
        if trainer.world_size > 1:
            everyone: list[tuple[Tensor, ...]] = [()] * trainer.world_size
            torch.distributed.all_gather_object(everyone, joined)
            joined = tuple(torch.cat(parts) for parts in zip(*filter(None, everyone), strict=True))
        if not joined:
            return None
        order = joined[0].argsort()
        return tuple(part[order] for part in joined)

    def _evaluation(self, trainer: Trainer) -> Evaluation | None:
        gathered = self._gather(trainer)
        if gathered is None:
            return None
        positions, probabilities, targets = gathered
        data = _corpus(trainer)
        utterances = [data.table[position] for position in positions.tolist()]
        wide = torch.promote_types(probabilities.dtype, torch.float32)  # NumPy has no bfloat16
        return Evaluation(
            labels=list(data.labels),
            files=[data.relative(utterance.path) for utterance in utterances],
            speakers=[utterance.speaker for utterance in utterances],
            targets=targets.numpy(),
            probabilities=probabilities.to(wide).numpy(),
        )

    def _keep_scores(self, trainer: Trainer, stage: str, evaluation: Evaluation, **facts: Any) -> None:
        path = Path(trainer.ckpt_path) if trainer.ckpt_path else None
        scored = {**facts, "checkpoint": path and path.name, "sha256": path and sha256_of(path)}
        self._write_scores(**{stage: {**scored, **evaluation.scores()}}, fingerprint=_corpus(trainer).fingerprint)
        for logger in trainer.loggers:
            if isinstance(logger, EvaluationLogger):
                with showing(f"The scores ({type(logger).__name__})"):
                    logger.log_evaluation(stage, evaluation)

    def _report(self, trainer: Trainer, stage: str, evaluation: Evaluation) -> None:
        self._keep_scores(trainer, stage, evaluation)
        data = _corpus(trainer)
        recordings = {data.relative(utterance.path): utterance.path for utterance in data.table}
        for logger in trainer.loggers:
            if isinstance(logger, EvaluationLogger):
                with showing(f"The predictions ({type(logger).__name__})"):
                    logger.log_predictions(stage, evaluation, recordings)
        speakers = sorted(set(evaluation.speakers))
        plural = "s" if len(speakers) > 1 else ""
        with showing("The scores"):
            print()
            evaluation.print(
                f"{data.name}, {stage}: {len(evaluation.files)} utterances of speaker{plural} {', '.join(speakers)}"
            )
            if self.source is not None and not self._protocol_json["trained_here"]:
                trained = self.source["trained_on"][-1]
                print(
                    f"Trained on {trained['corpus']} (speakers {', '.join(trained['speakers']['train'])}), tested on "
                    f"{data.name} (speaker{plural} {', '.join(speakers)})."
                )
            if source := self.source:
                print(f"Model: {source['system']}, {source['checkpoint']} (SHA-256 {source['sha256'][:12]})")
            if data.synthetic:
                print(SYNTHETIC)
            for note in self._protocol_json["notes"]:
                print(f"Note: {note}")

    def _fit_summary(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        return {
            "epochs": len(self._history),
            "steps": trainer.global_step,
            "seconds_per_epoch": sum(row["seconds"] for row in self._history) / max(len(self._history), 1),
            "trainable_parameters": _trainable(pl_module),
            "device": _name(trainer.strategy.root_device),  # after a fit, the module is on the CPU
            "precision": trainer.precision,
            "processes": trainer.world_size,
        }

    def _write_scores(self, **sections: Any) -> None:
        path = self.run.path / "metrics.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        self._write("metrics.json", _json({**known, **sections}))

    def _write(self, name: str, content: str | bytes) -> None:
        write_atomically(
            self.run.path / name, content.encode(errors="surrogateescape") if isinstance(content, str) else content
        )

    def _has(self, name: str) -> bool:
        return (self.run.path / name).exists()


def _refuse_unshared(run: Path) -> None:
    """See that the first process's run folder is here, too: what it writes to, all processes read the checkpoint from.

    Raises:
        UserError: It is not, even after some time, which a network's file system may take to show it.
    """
    deadline = time.monotonic() + SHOWN_WITHIN_S
    while not run.is_dir():
        if time.monotonic() > deadline:
            raise UserError(
                f"The run folder {run} of the first node is not on {socket.gethostname()}. Give a --run.root that all "
                "nodes share, and the same on all."
            )
        time.sleep(1)


def _print_recognised(labels: Sequence[str], rows: Sequence[Sequence[Any]], shown: int = 20) -> None:
    console = Console()
    words = [max(map(cell_len, column)) for column in zip(*((row[0], row[1]) for row in rows[:shown]), strict=True)]
    headers, legend = side_by_side(labels, console.width - sum(words) - len(words))
    table = PlainTable(["file", "emotion"], headers, narrow=True)
    for file, emotion, *probabilities in rows[:shown]:
        table.add_row(file, emotion, *(f"{value:.2f}" for value in probabilities))
    if len(rows) > shown:
        table.add_row("…")
    console.print(table)
    if legend:
        print(legend)


def _corpus(trainer: Trainer) -> Corpus:
    corpus: Corpus = trainer.datamodule  # type: ignore[attr-defined]
    return corpus


def _trainable(module: LightningModule) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@rank_zero_only
def say_device(trainer: Trainer) -> None:
    """Say on what a trainer runs."""
    device = trainer.strategy.root_device
    threads = torch.get_num_threads()
    cpu = f"CPU, {threads} thread{'s' * (threads > 1)}"
    name = cpu if device.type == "cpu" else _name(device)
    several = f"{trainer.world_size} × " if trainer.world_size > 1 else ""
    precision = "" if trainer.precision == "32-true" else f" ({trainer.precision})"
    with showing("The device"):
        print(f"Device: {several}{name}{precision}", file=sys.stderr, flush=True)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
