"""The task: trains and evaluates any network for emotion recognition in the same way."""

import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import torch
from lightning.fabric.utilities.cloud_io import _load
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection

from ser.data.feature_augment import SpecAugment, mix_up
from ser.errors import UserError
from ser.settings.class_paths import describe, public_paths
from ser.settings.registry import check_classes
from ser.training.checkpoints import (
    AS_TRAINED,
    FORMAT,
    check_emotions,
    check_front_end,
    check_network,
    history_of,
    named_publicly,
    settings_of,
)
from ser.training.corpus import Corpus
from ser.training.metrics import by_utterance, emotion_metrics

if TYPE_CHECKING:
    from ser.data.loaders import Batch

Stage = Literal["train", "val", "test"]
Normalize = Literal["bin", "global", "pixel", "utterance", "sign", "none"]
SegmentScores = Literal["mean", "max"]
SCORED: dict[str, tuple[Literal["val", "test"], ...]] = {
    "fit": ("test", "val"),
    "validate": ("val",),
    "test": ("test",),
}
# Tensors that a fit takes from its data before the first step. They are part of a checkpoint, but not buffers, since
# weight averaging must not change them.
FITTED = ("feature_mean", "feature_sigma", "emotion_weights")
SIGMA_FLOOR = 1e-6  # keeps constant features finite (bands that upsampling left empty)


class Predicted(NamedTuple):
    """The task's output for a batch.

    Attributes:
        loss: Scalar, for the trainer.
        probabilities: (U, K) of every utterance, detached.
        targets: (U,) class numbers.
        positions: (U,) numbers of the utterances, see :class:`ser.data.Batch`.
    """

    loss: Tensor
    probabilities: Tensor
    targets: Tensor
    positions: Tensor


class EmotionClassifier(LightningModule):
    """Standardise, mask, classify; score UAR, WA and macro-F1.

    Args:
        net: ``net(features, lengths) -> logits``, see ``ser.models``.
        emotions: Names of the classes, in the order of the logits.
        optimizer: Constructs the optimiser from the parameters.
        lr_scheduler: Constructs the schedule from the optimiser; null keeps the learning rate constant.
        lr_scheduler_interval: Step the schedule after every "epoch" or every "step" of the optimiser.
        normalize: To mean 0 and deviation 1: "bin" every feature by its own statistics, "global" all by the same,
            "pixel" every feature of every frame by its own, for which waveforms must be padded, all over the training
            split; "utterance" every feature of an utterance by the statistics of its valid frames; "none" not at all.
            "sign" keeps only the sign (-1, 0 or 1), a bug of paper 001's program.
        pad_before_norm: Leave padding at -mean/sigma instead of zero, as the public ACRNN code does.
        class_weights: "balanced" weights the loss of every training utterance by the inverse of its emotion's share
            of the training split, with mean 1; validation and test are never weighted.
        spec_augment: Masks frequency bands and time spans of training utterances; null masks nothing.
        mixup: Mix training utterances with weights from Beta(mixup, mixup); 0 does not mix.
        segment_scores: How the probabilities of an utterance's segments are combined: "mean", or "max", the largest of
            each emotion divided by their sum (ACRNN's program).

    Attributes:
        feature_mean: (..., 1) mean of each feature over the training utterances' valid frames; a scalar if "global",
            (..., T) if "pixel".
        feature_sigma: Their standard deviation, likewise.
        emotion_weights: (K,) weight of each emotion's utterances in the training loss.
        front_end: How a recording becomes features, as plain data, so that a checkpoint alone can recognise one.
        history: Every fit that led to these weights, as plain data, see :mod:`ser.protocols.history`: only unseen data
            are validated and tested.
        notes: Notes on the scores of the split that is being evaluated, a sentence each.
        system: Name of the system.
    """

    feature_mean: Tensor
    feature_sigma: Tensor
    emotion_weights: Tensor

    def __init__(
        self,
        net: nn.Module,
        emotions: list[str],
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        pad_before_norm: bool = False,
        normalize: Normalize = "bin",
        class_weights: Literal["none", "balanced"] = "none",
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
        spec_augment: SpecAugment | None = None,
        mixup: float = 0.0,
        segment_scores: SegmentScores = "mean",
    ) -> None:
        super().__init__()
        if mixup < 0:
            raise UserError(f"mixup is {mixup}; it must be positive, or 0 to mix nothing.")
        for name, value, known in (
            ("normalize", normalize, get_args(Normalize)),
            ("segment_scores", segment_scores, get_args(SegmentScores)),
        ):
            if value not in known:
                raise UserError(f"{name} is {value!r}; choose one of {', '.join(known)}.")
        with warnings.catch_warnings():
            # Lightning proposes ignore=["net"], with which load_from_checkpoint cannot build the net.
            warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`")
            self.save_hyperparameters()
        self.net = net
        self.emotions = emotions
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.lr_scheduler_interval = lr_scheduler_interval
        self.normalize = normalize
        self.class_weights = class_weights
        self.spec_augment = spec_augment
        self.mixup = mixup
        self.segment_scores = segment_scores
        self.front_end: dict[str, Any] | None = None
        self.history: Sequence[Mapping[str, Any]] = []
        self.notes: list[str] = []
        self.system: str | None = None
        self.pad_before_norm = pad_before_norm
        self.train_metrics = emotion_metrics(len(emotions), "train/")
        self.val_metrics = emotion_metrics(len(emotions), "val/")
        self.test_metrics = emotion_metrics(len(emotions), "test/")
        self.feature_mean = torch.zeros(())
        self.feature_sigma = torch.ones(())
        self.emotion_weights = torch.ones(len(emotions))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the tensors of :data:`FITTED`, too."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name in FITTED:
            setattr(self, name, fn(getattr(self, name)))
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination.update({f"{prefix}{name}": getattr(self, name) for name in FITTED})

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        missing, unexpected = args[2:4]
        for name in FITTED:
            key = f"{prefix}{name}"
            if key in state_dict:
                setattr(self, name, state_dict[key].to(self.device))
                unexpected[:] = [other for other in unexpected if other != key]
            else:
                missing.append(key)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of a batch.

        Args:
            features: (B, ..., T), as the front-end computes them.
            lengths: (B,) valid frames of each.

        Returns:
            (B, K).
        """
        logits: Tensor = self.net(self.standardise(features, lengths), lengths)
        return logits

    def standardise(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Return the network's input: features (B, ..., T) and (B,) valid frames of each, to (B, ..., T)."""
        valid = torch.arange(features.shape[-1], device=features.device) < lengths[:, None]  # (B, T)
        valid = valid.reshape(len(lengths), *[1] * (features.dim() - 2), -1)  # (B, 1, ..., T)
        features = self._normalized(features, valid)
        return features if self.pad_before_norm else features * valid

    def _normalized(self, features: Tensor, valid: Tensor) -> Tensor:
        """Normalise (B, ..., T); ``valid`` broadcasts with it and is true for valid frames."""
        if self.normalize == "none":
            return features
        if self.normalize == "sign":
            return features.sign()
        mean, sigma = self.feature_mean, self.feature_sigma
        if self.normalize == "utterance":
            frames = valid.sum(dim=-1, keepdim=True)
            mean = (features * valid).sum(dim=-1, keepdim=True) / frames  # (B, ..., 1)
            sigma = (((features - mean) * valid).square().sum(dim=-1, keepdim=True) / frames).sqrt()
        return (features - mean) / sigma.clamp_min(SIGMA_FLOOR)

    def training_step(self, batch: "Batch", batch_idx: int) -> Tensor:
        """Return the loss of a training batch."""
        return self._step(batch, "train", self.train_metrics).loss

    def validation_step(self, batch: "Batch", batch_idx: int) -> dict[str, Tensor]:
        """Score a validation batch."""
        return self._step(batch, "val", self.val_metrics)._asdict()

    def test_step(self, batch: "Batch", batch_idx: int) -> dict[str, Tensor]:
        """Score a test batch."""
        return self._step(batch, "test", self.test_metrics)._asdict()

    def predict_step(self, batch: "Batch", batch_idx: int) -> tuple[Tensor, Tensor]:
        """Return the utterances' positions (U,) and the probability of every emotion (U, K)."""
        probabilities, _, positions = self._predicted(self(batch.features, batch.lengths), batch)
        return positions, probabilities

    def configure_optimizers(self) -> Any:
        """Build the optimiser and, if there is one, the schedule."""
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        watched = {"monitor": scheduler.monitor} if hasattr(scheduler, "monitor") else {}
        schedule = {"scheduler": scheduler, "interval": self.lr_scheduler_interval, **watched}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def check_data(self, trainer: Trainer, data: Corpus | None) -> None:
        """Check that network, data and trainer fit together.

        Raises:
            UserError: They do not.
        """
        network = type(self.net).__name__
        if data is not None and data.padding == "batch" and not getattr(self.net, "any_length", True):
            raise UserError(
                f"padding is 'batch', but {network} takes clips of one length only, or its scores vary with it: "
                "give --data.padding fixed."
            )
        if str(trainer.precision) in ("16-true", "bf16-true", "64-true"):
            raise UserError(
                f"precision is {trainer.precision}, but the statistics of the features are in single precision: give "
                "--trainer.precision 32-true, 16-mixed or bf16-mixed."
            )
        if self.normalize == "pixel" and data is not None and not data.front_end.preprocess.pad_waveform:
            raise UserError(
                "normalize is 'pixel', which needs all frames of every utterance: "
                "give --data.preprocess.pad_waveform true."
            )
        if callable(getattr(self.net, "on_step", None)) and trainer.max_epochs == -1 and trainer.max_steps == -1:
            raise UserError(
                f"Neither max_epochs nor max_steps is given, but {network} follows the progress of training, which "
                "needs an end: give --trainer.max_epochs or --trainer.max_steps."
            )

    def check_unseen(self, history: Sequence[Mapping[str, Any]], data: Corpus, stage: str) -> None:
        """Check that the splits that a stage scores are unseen, and keep notes on the scores.

        Args:
            history: Every fit that led to the weights.
            data: The data module.
            stage: "fit", "validate", "test" or "predict".

        Raises:
            UserError: The network was trained or selected on data that the protocol wants unseen.
        """
        notes = [note for split in SCORED.get(stage, ()) for note in data.check_unseen(history, split)]
        if not history and stage in ("validate", "test"):
            notes = ["The training of this network is unknown: it may have seen the data that are scored."]
        self.notes = list(dict.fromkeys(notes))

    def check_fit(self, trainer: Any) -> None:
        """Construct optimiser and schedule, and check that every monitored score is logged.

        Raises:
            UserError: One could not be constructed, the schedule is too short, or a monitored score is never logged.
        """
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise UserError(
                f"{type(self.net).__name__} has no parameters to train: give a network, as in --model.net CoRNN."
            )
        made = self.configure_optimizers()
        schedule = made["lr_scheduler"] if isinstance(made, dict) else {}
        scheduler, monitor = schedule.get("scheduler"), schedule.get("monitor")
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            if monitor is None:
                raise UserError(
                    "torch.optim.lr_scheduler.ReduceLROnPlateau does not say which score it monitors: give "
                    "--lr_scheduler lightning.pytorch.cli.ReduceLROnPlateau --lr_scheduler.monitor val/uar."
                )
            rare = str(monitor).startswith("val/") and trainer.check_val_every_n_epoch != 1
            if self.lr_scheduler_interval == "step" or rare:
                raise UserError(
                    f"ReduceLROnPlateau needs {monitor} at every step, so each step must follow a validation: "
                    "give --model.lr_scheduler_interval epoch and --trainer.check_val_every_n_epoch 1."
                )
        self._check_length(scheduler, "epoch", trainer.max_epochs)
        monitors = [(type(scheduler).__name__, monitor)]
        monitors += [(type(callback).__name__, getattr(callback, "monitor", None)) for callback in trainer.callbacks]
        logged = ["train/loss", *map(str, self.train_metrics), "val/loss", *map(str, self.val_metrics)]
        for name, score in monitors:
            if score is not None and score not in logged:
                raise UserError(f"{name} monitors {score!r}, which is not logged; choose one of {', '.join(logged)}.")

    def _check_length(self, scheduler: Any, interval: str, steps: int | float | None) -> None:
        """Check that a schedule does not end before training does, both in epochs or in steps of the optimiser."""
        total = getattr(scheduler, "total_steps", None)
        if self.lr_scheduler_interval == interval and total is not None and steps not in (None, -1) and steps > total:
            raise UserError(
                f"{type(scheduler).__name__} ends after total_steps = {total}, but training takes {steps} "
                f"{interval}s: give --lr_scheduler.total_steps {steps}, or another --model.lr_scheduler_interval."
            )

    def setup(self, stage: str) -> None:
        """Check data and network; for a fit take front-end and statistics from the data.

        Raises:
            UserError: They do not fit together, or the network has seen data that it is to be scored on.
        """
        data: Corpus | None = getattr(self.trainer, "datamodule", None)
        self.check_data(self.trainer, data)
        if stage == "fit":
            self.check_fit(self.trainer)
            self._synchronise()
        if data is None:
            return
        if self.trainer.ckpt_path is None:  # otherwise weights with their own history are loaded next
            self._check_trained(data, stage)
        if stage == "fit":
            self._take_from(data)

    def _synchronise(self) -> None:
        """Let our batch norms follow ``--trainer.sync_batchnorm``, as Lightning has PyTorch's do."""
        asked = getattr(self.trainer.strategy, "_layer_sync", None) is not None and self.trainer.world_size > 1
        for layer in self.net.modules():
            if hasattr(layer, "synchronised"):
                vars(layer).update(synchronised=asked)

    def _check_trained(self, data: Corpus, stage: str) -> None:
        if self.front_end is not None:
            check_front_end(self.front_end, data.front_end.description())
        if stage != "predict":
            check_emotions(self.emotions, data.labels)
        self.check_unseen(self.history, data, stage)
        if stage == "fit":
            self.history = data.extended_history(self.history)

    def _take_from(self, data: Corpus) -> None:
        self.front_end = data.front_end.description()
        self.history = self.history or data.extended_history([])
        if self.normalize in ("bin", "global", "pixel"):
            mean, sigma = data.statistics(by_frame=self.normalize == "pixel")
            if self.normalize == "global":  # every feature has the same number of frames
                mean, sigma = mean.mean(), (sigma.square() + (mean - mean.mean()).square()).mean().sqrt()
            self.feature_mean, self.feature_sigma = mean.to(self.device), sigma.to(self.device)
        if self.class_weights == "balanced":
            emotions = [data.table[i].emotion for i in data.split.train]
            counts = torch.tensor([emotions.count(emotion) for emotion in self.emotions])
            weights = len(emotions) / (counts.clamp_min(1) * (counts > 0).sum())
            self.emotion_weights = weights.to(self.device)

    def on_fit_start(self) -> None:
        """Do not train if early stopping has ended the fit that is resumed."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
                self.trainer.should_stop = True

    def on_validation_start(self) -> None:
        """See :meth:`on_test_start`."""
        if not self.trainer.sanity_checking:
            self._check_loaders(self.trainer.val_dataloaders, "validate")

    def on_test_start(self) -> None:
        """Check loaders that are used without their data module, too: each knows it.

        Raises:
            UserError: The network has seen data that it is to be scored on.
        """
        self._check_loaders(self.trainer.test_dataloaders, "test")

    def on_train_start(self) -> None:
        """Check the length of the schedule in steps, which is known only now, and that the data module is given.

        Raises:
            UserError: The schedule ends before training does, or loaders are given without their data module, so that
                statistics and history would be missing.
        """
        self._check_length(self.lr_schedulers(), "step", self.trainer.estimated_stepping_batches)
        if self._without_module(self.trainer.train_dataloader):
            raise UserError("Loaders were given without their data module: call trainer.fit(task, data).")

    def _check_loaders(self, loaders: Any, stage: str) -> None:
        for data in self._without_module(loaders):
            self._check_trained(data, stage)

    def _without_module(self, loaders: Any) -> list[Corpus]:
        if getattr(self.trainer, "datamodule", None) is not None:
            return []
        loaders = CombinedLoader(loaders).flattened  # Lightning takes one, or any lists and dicts of them
        return [loader.source for loader in loaders if hasattr(loader, "source")]

    def on_train_batch_start(self, batch: "Batch", batch_idx: int) -> None:
        """Seed dropout, and tell the network the progress of training.

        The seed follows from the run's seed and the epoch, so that a resumed fit equals an uninterrupted one. It is set
        at the first batch, since the loader may draw a random number at the start of an epoch after a resume.
        """
        on_step = getattr(self.net, "on_step", None)
        if callable(on_step):  # such as the temperature of a dynamic convolution
            on_step(self.global_step, int(self.trainer.estimated_stepping_batches))
        seed = os.environ.get("PL_GLOBAL_SEED")  # what Lightning's seed_everything was called with
        if batch_idx == 0 and seed is not None:
            torch.manual_seed(hash((int(seed), self.current_epoch, self.global_rank)) % 2**63)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the front-end and the history, and describe network and optimiser as plain data.

        Checkpoints of the command line already have this form; this gives it to those made in Python.
        """
        checkpoint |= {"format": FORMAT, "system": self.system, "front_end": self.front_end, "history": self.history}
        for kept in ("state_dict", "current_model_state"):  # the latter where weights are averaged
            if kept in checkpoint:
                checkpoint[kept] |= {name: getattr(self, name) for name in FITTED}
        if "_instantiator" not in checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}):
            checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = {
                **describe(self)["init_args"],
                "_instantiator": "lightning.pytorch.cli.instantiate_module",
            }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take front-end and statistics from the checkpoint.

        Raises:
            UserError: It belongs to another network or to other emotions.
        """
        self.check_checkpoint(checkpoint)
        self.front_end = public_paths(checkpoint.get("front_end"))
        self.history = public_paths(history_of(checkpoint))
        self.system = self.system or checkpoint.get("system")
        settings = checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        for name in AS_TRAINED:
            setattr(self, name, settings.get(name, getattr(self, name)))
        data: Corpus | None = getattr(self._trainer, "datamodule", None)
        if self._trainer is not None and data is not None:
            self._check_trained(data, TrainerFn(self._trainer.state.fn).value)

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: str | Path | IO[bytes],
        map_location: Any = None,
        hparams_file: str | Path | None = None,
        strict: bool | None = None,
        weights_only: bool | None = True,
        **kwargs: Any,
    ) -> Self:
        """Construct a task from a checkpoint, which may only name classes of ``ser`` and PyTorch.

        Args:
            checkpoint_path: The checkpoint.
            map_location: See Lightning's ``load_from_checkpoint``; likewise the next two.
            hparams_file: YAML of settings to use instead of the checkpoint's.
            strict: Whether all weights must match.
            weights_only: Ignored: only tensors and plain data are read.
            kwargs: Constructor arguments to use instead of the checkpoint's, such as a network of your own class.

        Raises:
            UserError: It names other classes.
        """
        checkpoint = _load(checkpoint_path, map_location="cpu", weights_only=True)
        check_classes(settings_of(checkpoint, given=kwargs), str(checkpoint_path))
        content = io.BytesIO()
        torch.save(named_publicly(checkpoint), content)
        content.seek(0)
        loaded: Self = super().load_from_checkpoint(
            content, map_location, hparams_file, strict, weights_only=True, **kwargs
        )
        return loaded

    def check_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this network and these emotions, see :func:`check_network`."""
        check_network(checkpoint, self.emotions, self.net)

    def _step(self, batch: "Batch", stage: Stage, metrics: MetricCollection) -> Predicted:
        if stage == "train":
            logits, loss = self._train(batch)
            probabilities, targets, positions = logits.detach().softmax(dim=-1), batch.targets, batch.positions
        else:
            logits = self(batch.features, batch.lengths).float()  # (B, K)
            probabilities, targets, positions = self._predicted(logits, batch)
            losses = F.cross_entropy(logits, batch.targets, reduction="none")[:, None]  # (B, 1)
            losses, _, owners = by_utterance(losses, batch.targets, batch.positions)  # (U, 1)
            loss = losses[owners >= 0].sum() / max(len(targets), 1)
        metrics.update(probabilities, targets)
        scores: dict[str, Any] = {f"{stage}/loss": loss, **dict(metrics.items())}
        # The validation of the chosen checkpoint after a fit is no further point of its curves.
        after_fit = self._trainer and self._trainer.state.fn == TrainerFn.VALIDATING and self.global_step > 0
        for name, score in scores.items():
            # A metric reduces over all processes at the end of the epoch; Lightning wants sync_dist all the same.
            self.log(
                name,
                score,
                on_step=False,
                on_epoch=True,
                batch_size=len(targets),
                prog_bar=name.endswith(("loss", "uar")),
                sync_dist=True,
                logger=False if after_fit else None,  # None logs without a warning where there is no logger
            )
        return Predicted(loss, probabilities, targets, positions)

    def _predicted(self, logits: Tensor, batch: "Batch") -> tuple[Tensor, Tensor, Tensor]:
        """Combine the segments of each utterance.

        Args:
            logits: (B, K).
            batch: The batch.

        Returns:
            Probabilities (U, K), targets and positions (U,), without the items that only fill up a batch.
        """
        segments = logits.float().softmax(dim=-1)
        probabilities, targets, positions = by_utterance(segments, batch.targets, batch.positions, self.segment_scores)
        if self.segment_scores == "max":
            probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
        counted = positions >= 0
        return probabilities[counted], targets[counted], positions[counted]

    def _train(self, batch: "Batch") -> tuple[Tensor, Tensor]:
        """Return the logits (B, K) of an augmented batch, and the weighted loss."""
        features, lengths = self.standardise(batch.features, batch.lengths), batch.lengths
        if self.spec_augment is not None:
            features = self.spec_augment(features)
        if not self.mixup:
            logits = self.net(features, lengths).float()
            return logits, self._weighted_loss(logits, batch.targets)
        mixed = mix_up(features, lengths, self.mixup)
        logits = self.net(mixed.features, mixed.lengths).float()
        own, others = (self._weighted_loss(logits, targets) for targets in (batch.targets, batch.targets[mixed.others]))
        return logits, mixed.share * own + (1 - mixed.share) * others

    def _weighted_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        losses = F.cross_entropy(logits, targets, reduction="none")  # (B,)
        return (losses * self.emotion_weights[targets]).mean()
