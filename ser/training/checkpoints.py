"""Checkpoints: written atomically, read safely, and compared with the run that resumes from them.

A checkpoint is Lightning's, with these keys of ``ser``: ``format``, ``system``, ``front_end`` and ``history``, see
:class:`ser.training.EmotionClassifier`, and from a run folder ``calibration``, see :mod:`ser.runs.confidence`.
"""

import hashlib
import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.core.saving import CHECKPOINT_PAST_HPARAMS_KEYS
from torch import nn

from ser.errors import UserError
from ser.protocols.history import check_history, in_short
from ser.runs.settings import LENGTH, differences
from ser.settings.class_paths import public_paths
from ser.settings.registry import check_classes
from ser.storage import write_atomically

FORMAT = 2  # of what ser adds to a checkpoint; 1 held only the last fit, and its speakers by name

FRONT_END = ("preprocess", "features")  # options of the data that a checkpoint may set
AS_TRAINED = ("normalize", "pad_before_norm", "segment_scores")  # settings of the task that recognition needs


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file and renames it: a kill or a full disk leaves the old one intact."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint to a path."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getvalue())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint: only tensors and plain data, whatever ``weights_only`` is."""
        return super().load_checkpoint(path, map_location, weights_only=True)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a file, never a folder: the paths of outdated checkpoints come from the checkpoint that is resumed."""
        if Path(path).is_file():
            Path(path).unlink()


AVERAGED = "averaged.ckpt"


def averaged(trainer: Trainer) -> bool:
    """Tell whether training ends with averaging the weights, which no epoch's checkpoint holds then."""
    return any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]


class StopEarly(EarlyStopping):
    """Lightning's EarlyStopping; a resumed fit has the patience that it is given, not its former one."""

    @property
    def state_key(self) -> str:
        """Key of its state in a checkpoint: Lightning's."""
        return super().state_key.replace(type(self).__name__, EarlyStopping.__name__)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint; a fit that was stopped trains on if it is given more patience."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience
        if self.wait_count < patience and self.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED:
            self.stopping_reason = EarlyStoppingReason.NOT_STOPPED


class BestCheckpoint(ModelCheckpoint):
    """Keeps the best epoch by the monitored score, also in a run folder that was moved."""

    @property
    def state_key(self) -> str:
        """Key of its state in a checkpoint, with its former name."""
        return super().state_key.replace(type(self).__name__, "BestAndLast")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights as StochasticWeightAveraging has averaged them."""
        if self.dirpath is not None and averaged(trainer):
            trainer.save_checkpoint(Path(self.dirpath, AVERAGED))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint, whose neighbours are found even if the folder was moved."""
        folder = Path(self.dirpath or "")

        def here(path: str) -> str:
            return path and str(folder / Path(path).name)

        if Path(here(state_dict["best_model_path"])).is_file():
            paths = {name: here(path) for name, path in state_dict.items() if name.endswith("_model_path")}
            best = {here(path): score for path, score in state_dict["best_k_models"].items()}
            state_dict = {**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)


def read_checkpoint(path: Path, named: Collection[str] = ()) -> dict[str, Any]:
    """Read a checkpoint; its tensors stay on disk until they are used.

    Args:
        path: The file.
        named: Class paths of the command or config, which the checkpoint may name, too.

    Raises:
        UserError: There is no such file, it is no checkpoint of ser, or it names classes that are not allowed.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        newer = checkpoint.get("format", 1) > FORMAT
        if not newer:
            _check_form(checkpoint)
    except FileNotFoundError as error:
        raise UserError(f"There is no checkpoint {path}.") from error
    except Exception as error:  # torch raises a dozen classes for a damaged file
        raise UserError(
            f"{path} is not a checkpoint of ser, or is damaged ({type(error).__name__}). "
            "Give the best.ckpt or last.ckpt of a run folder."
        ) from error
    if newer:
        raise UserError(
            f"{path} has format {checkpoint['format']}, but this version of ser reads up to {FORMAT}: update ser."
        )
    check_classes(settings_of(checkpoint), str(path), named)
    return named_publicly(checkpoint)


def named_publicly(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return a checkpoint of any age with every class under its public path."""
    naming = ("hyper_parameters", "front_end", "history", "trained_on")
    public = {key: public_paths(value) if key in naming else value for key, value in checkpoint.items()}
    if public.get("front_end"):
        public["front_end"] = _present_front_end(public["front_end"], public["hyper_parameters"].get("normalize"))
    return public


def _present_front_end(front_end: dict[str, Any], normalize: str | None) -> dict[str, Any]:
    """Replace two settings of former versions, bugs of paper 001's program, by others that give the same input."""
    preprocess, features = front_end["preprocess"], front_end["features"]
    arguments = features["init_args"]
    if preprocess.get("waveform_norm") == "signed_max" and arguments.get("scale") == "db_of_max":
        preprocess = {**preprocess, "waveform_norm": "peak"}
    if arguments.get("scale") == "doubled_db" and normalize == "sign":
        top_db = arguments["top_db"]
        arguments = {**arguments, "scale": "db", "top_db": None if top_db is None else top_db / 2}
    return {**front_end, "preprocess": preprocess, "features": {**features, "init_args": arguments}}


def _check_form(checkpoint: dict[str, Any]) -> None:
    """Check that everything that is read later is there, and of the right type.

    Raises:
        Exception: Of any class, if it is not.
    """
    check_history(history_of(checkpoint))
    "".join(checkpoint["hyper_parameters"]["emotions"])
    dict(checkpoint["front_end"] or {})
    [value.shape for value in (checkpoint["state_dict"]["feature_mean"], *checkpoint["state_dict"].values())]


def settings_of(checkpoint: dict[str, Any], given: Collection[str] = ()) -> dict[str, Any]:
    """Return everything in a checkpoint that may name classes.

    Args:
        checkpoint: From any source.
        given: Names of settings that are replaced.
    """
    settings: dict[str, Any] = {}
    for place in (*CHECKPOINT_PAST_HPARAMS_KEYS, "hyper_parameters"):  # which load_from_checkpoint reads, in this order
        settings |= checkpoint.get(place, {})
    own = ("emotions", "_instantiator", *given)  # emotions are data; Lightning has its own list of instantiators
    return {
        **{name: value for name, value in settings.items() if name not in own},
        "front_end": checkpoint.get("front_end"),
        "protocols": [fit.get("protocol") for fit in history_of(checkpoint)],
    }


def history_of(checkpoint: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every fit that led to a checkpoint; format 1 holds only the last."""
    former = checkpoint.get("trained_on")
    return list(checkpoint.get("history") or ([former] if former else []))


def source_of(path: Path, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the content of ``model.json``: the model's file, hash and system, and what it was trained on."""
    history = in_short(history_of(checkpoint))
    named = {"checkpoint": str(path), "sha256": sha256_of(path), "system": system_of(path, checkpoint)}
    return {**named, "trained_on": history}


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def system_of(path: Path, checkpoint: dict[str, Any]) -> str:
    """Return the name of a checkpoint's system: its own, or that of its run folder, or else its network's class."""
    named = checkpoint.get("system")
    config = path.resolve().parents[1] / "config.yaml"
    if named is None and config.is_file():
        try:
            named = (yaml.safe_load(config.read_text()).get("run") or {}).get("system")
        except (OSError, ValueError, AttributeError, yaml.YAMLError):  # not a file of ser
            named = None
    return str(named or checkpoint["hyper_parameters"]["net"]["class_path"].rpartition(".")[2].lower())


def defaults_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return defaults, from a checkpoint, of the options for network and front-end."""
    settings = checkpoint["hyper_parameters"]
    net = settings["net"]
    linked = ("num_classes", "feature_shape")  # follow from the data
    arguments = {name: value for name, value in net["init_args"].items() if name not in linked}
    history = history_of(checkpoint)
    front_end = {name: value for name, value in (checkpoint["front_end"] or {}).items() if name in FRONT_END}
    fold = {name: history[-1][name] for name in ("protocol", "fold", "merge") if history and name in history[-1]}
    return {
        "model.net": {"class_path": net["class_path"], "init_args": arguments},
        **{f"model.{name}": settings[name] for name in AS_TRAINED if name in settings},
        "data": {
            "class_path": "ser.corpora.AudioFolder",
            "init_args": {**front_end, "emotions": settings["emotions"], **fold},
        },
    }


def check_front_end(trained: dict[str, Any], given: dict[str, Any]) -> None:
    """Check that the front-end is the one that a network was trained with.

    Raises:
        UserError: They differ.
    """
    if differing := differences(given, trained):
        raise UserError(
            "Preprocessing or features differ from those that the checkpoint was trained with, so its predictions "
            "would be meaningless:\n"
            + "\n".join(f"  {line}" for line in differing)
            + "\nGive the data module the checkpoint's preprocess and features, the defaults of the command line."
        )


def check_emotions(known: list[str], labels: list[str]) -> None:
    """Check that the emotions of a network, in the order of its outputs, are the labels of data.

    Raises:
        UserError: They differ, or their order does.
    """
    if known != labels:
        raise UserError(
            f"The checkpoint recognises {', '.join(known)}; the data are labelled {', '.join(labels)}. "
            f"Give --data.emotions '[{','.join(known)}]', or a checkpoint trained on these emotions."
        )


def check_network(checkpoint: dict[str, Any], emotions: list[str], net: nn.Module) -> None:
    """Check that a checkpoint belongs to a network and its emotions.

    Raises:
        UserError: It belongs to another network, or to other emotions or another order of them.
    """
    check_emotions(list(checkpoint.get("hyper_parameters", {}).get("emotions", emotions)), emotions)
    ours = {f"net.{name}": tuple(value.shape) for name, value in net.state_dict().items()}
    saved = {n: tuple(v.shape) for n, v in checkpoint["state_dict"].items() if n.startswith("net.")}
    if ours != saved:
        name = next(name for name in (*ours, *saved) if ours.get(name) != saved.get(name))
        raise UserError(
            f"The checkpoint is of another network than this {type(net).__name__}: {name} has shape "
            f"{saved.get(name, 'none')} there and {ours.get(name, 'none')} here. "
            "Give the config and the options that it was trained with."
        )


def check_same_settings(config: str, kept: Path) -> None:
    """Check that the settings of a resumed run are those that it was started with; the length of training may differ.

    Raises:
        UserError: Settings that decide its result differ.
    """
    if kept.exists() and (differing := differences(yaml.safe_load(config), yaml.safe_load(kept.read_text()), LENGTH)):
        raise UserError(
            f"The run in {kept.parent} was started with other settings, so it cannot be resumed with these:\n"
            + "\n".join(f"  {line}" for line in differing)
            + "\nGive the settings that it was started with, or leave --ckpt_path out to start another run."
        )
