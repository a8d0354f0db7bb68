"""Weights & Biases: dashboards of a run, with or without an account."""

import functools
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.loggers.logger import _DummyExperiment
from lightning.pytorch import loggers
from lightning.pytorch.utilities import rank_zero_only

from ser.runs.folder import Evaluation, RunFolder
from ser.runs.scores import percent
from ser.terminal.streams import showing

LONGEST_TAG, LONGEST_NAME = 64, 128  # characters, to W&B
WANDB_ID = "wandb_id"  # file of the run folder
RECORDINGS = 10  # of the most confident mistakes
ANSWERS_WITHIN_S = 30.0  # of a server, at the start of a run
DRAWN = 30  # characters of an emotion that are drawn


def _kept_from_failing(method: Callable[..., None]) -> Callable[..., None]:
    """Let a run continue without W&B where that fails, with one message; the run folder holds everything."""

    @functools.wraps(method)
    def call(self: "WandbLogger", *args: Any, **kwargs: Any) -> None:
        if self.lost:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.give_up(error)

    return call


class WandbLogger(loggers.WandbLogger):
    """Lightning's logger, offline unless a key is configured, with dashboards of confusion matrices and recalls.

    Args:
        project: W&B project.
        offline: Keep the run on this machine; null does so when no API key is configured.
        log_model: Upload checkpoints, see Lightning's logger.
        tags: Tags of the run, in addition to those of ``ser``.
        audio_mb: The recordings of the most confident mistakes are kept with the run, up to this size in megabytes. An
            online run uploads them: 0 for recordings that must not be shared.
    """

    def __init__(
        self,
        project: str = "ser",
        offline: bool | None = None,
        log_model: bool = False,
        tags: list[str] | None = None,
        audio_mb: float = 4.0,
    ) -> None:
        if offline is None:
            offline = not _key_configured()
        super().__init__(project=project, offline=offline, log_model=log_model, tags=tags or [])
        del self._wandb_init["anonymous"]  # W&B warns of the argument that Lightning always passes
        self.lost = False
        self.run_folder: RunFolder | None = None
        self.tags = tags or []
        self.audio_mb = audio_mb

    def attach(
        self, run: RunFolder, tags: list[str], facts: Callable[[], dict[str, Any]], job_type: str | None = None
    ) -> None:
        """Name the W&B run after the run folder and keep its files there.

        Args:
            run: The folder; not created before the first log.
            tags: Corpus, system and protocol.
            facts: Returns what to show and to filter by; called before the first log.
            job_type: What kind of run it is; null for a fit.
        """
        self.run_folder = run
        self._facts = facts
        self._wandb_init |= {"tags": [tag[:LONGEST_TAG] for tag in (*self.tags, *tags)], "job_type": job_type}

    @property
    def version(self) -> None:
        """No version: the run folder names the run, and W&B's id would only fill the progress bar."""

    @property
    def experiment(self) -> Any:
        """The W&B run."""
        if self._experiment is None and self.run_folder is not None and getattr(rank_zero_only, "rank", 0) == 0:
            path = self.run_folder.path
            import wandb

            # The content of tables, which otherwise lies in the user's home until a run is uploaded.
            os.environ["WANDB_DATA_DIR"] = str(path.resolve() / "wandb")
            self._save_dir = str(path)
            self._name = path.name
            self._wandb_init |= {
                "dir": str(path),
                "name": path.name[:LONGEST_NAME],
                "group": path.parent.name[:LONGEST_NAME],
                "id": _identity(path),
                "config": self._facts(),
                "settings": wandb.Settings(silent=True, init_timeout=ANSWERS_WITHIN_S),
            }
            try:
                return super().experiment
            except Exception as error:  # no network, or a key or an address that is not valid
                reason = str(error).splitlines()[0]
                print(f"W&B cannot be reached, so the run is kept offline ({reason}).", file=sys.stderr)
                self._offline = True
                (path / WANDB_ID).unlink()  # W&B holds the id of the attempt to be in use
                self._wandb_init |= {"mode": "offline", "id": _identity(path)}
            try:
                return super().experiment
            except Exception as error:
                self.give_up(error)
        return _DummyExperiment() if self.lost else super().experiment

    def give_up(self, error: Exception) -> None:
        """Print once that nothing more is logged."""
        self.lost = True
        with showing("What happened to W&B"):
            reason = f"W&B failed ({type(error).__name__}: {error}), so nothing more is logged there"
            print(f"ser: warning: {reason}; the run folder holds everything.", file=sys.stderr)

    log_metrics = rank_zero_only(_kept_from_failing(loggers.WandbLogger.log_metrics))
    log_hyperparams = rank_zero_only(_kept_from_failing(loggers.WandbLogger.log_hyperparams))
    after_save_checkpoint = _kept_from_failing(loggers.WandbLogger.after_save_checkpoint)
    finalize = rank_zero_only(_kept_from_failing(loggers.WandbLogger.finalize))

    @rank_zero_only
    @_kept_from_failing
    def log_evaluation(self, stage: str, evaluation: Evaluation) -> None:
        """Show the confusion matrix, interactive and as a row-normalised heat map, and the recalls.

        The summary keeps the scores: those of the validation are the best epoch's then, not the last one's.
        """
        import wandb

        recalls = [[label, recall] for label, recall in evaluation.recalls.items()]
        self.experiment.log(
            {
                f"{stage}/confusion_matrix": wandb.plot.confusion_matrix(
                    y_true=evaluation.targets.tolist(),
                    preds=evaluation.predicted.tolist(),
                    class_names=list(evaluation.labels),
                    title=f"{stage} confusion",
                ),
                f"{stage}/confusion_heatmap": wandb.Image(heat_map(evaluation)),
                f"{stage}/recalls": wandb.Table(columns=["emotion", "recall"], data=recalls),
            }
        )
        scores = evaluation.scores()
        self.experiment.summary.update({f"{stage}/{name}": scores[name] for name in ("uar", "wa", "macro_f1")})

    @rank_zero_only
    @_kept_from_failing
    def log_predictions(self, stage: str, evaluation: Evaluation, recordings: Mapping[str, Path]) -> None:
        """List every utterance, the most confident mistakes first and with their recordings.

        Args:
            stage: "val" or "test".
            evaluation: The predictions.
            recordings: Path of every utterance's file.
        """
        import wandb

        confidences, wrong = evaluation.probabilities.max(axis=1), evaluation.predicted != evaluation.targets
        order = np.argsort(-confidences - wrong, kind="stable").tolist()
        table = wandb.Table(columns=["file", "speaker", "target", "predicted", "confidence", "correct", "audio"])
        spare = self.audio_mb * 1e6
        for row, i in enumerate(order):
            path = recordings[evaluation.files[i]]
            size = path.stat().st_size if path.is_file() else spare + 1  # it may be gone since it was read
            kept = bool(wrong[i]) and row < RECORDINGS and size <= spare
            spare -= size if kept else 0
            table.add_data(
                evaluation.files[i],
                evaluation.speakers[i],
                evaluation.labels[evaluation.targets[i]],
                evaluation.labels[evaluation.predicted[i]],
                confidences[i].item(),
                not wrong[i],
                wandb.Audio(str(path)) if kept else None,
            )
        self.experiment.log({f"{stage}/predictions": table})

    @rank_zero_only
    @_kept_from_failing
    def log_summary(self, values: Mapping[str, float], table: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep values in the summary, and show a table of rows with the same columns."""
        import wandb

        self.experiment.summary.update(values)
        cells = [list(row.values()) for row in rows]
        self.experiment.log({table: wandb.Table(columns=list(rows[0]), data=cells)})

    @property
    def offline(self) -> bool:
        """Whether the run is kept on this machine."""
        return bool(self._offline)

    def where(self) -> str | None:
        """Return how to look at the run, or None."""
        if self._experiment is None or self.lost:
            return None
        if not self._offline:
            return f"W&B: {self._experiment.url}"
        folder = Path(self._experiment.dir).parent
        shown = os.path.relpath(folder)
        return (
            f"W&B (offline): look at it with   wandb leet {shown}\n               upload it with    wandb sync {shown}"
        )


def heat_map(evaluation: Evaluation) -> Any:
    """Draw the row-normalised confusion matrix.

    Returns:
        A matplotlib figure; rows are the truth, a cell shows the percentage of its row and the count.
    """
    from matplotlib.figure import Figure

    confusion = evaluation.confusion
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = 1.6 + 0.9 * len(evaluation.labels)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = range(len(evaluation.labels))
    labels = [label if len(label) <= DRAWN else f"{label[: DRAWN - 1]}…" for label in evaluation.labels]
    labels = [label.replace("$", r"\$") for label in labels]  # Matplotlib takes what two of them enclose for a formula
    axes.set_xticks(ticks, labels, rotation=45, ha="right")
    axes.set_yticks(ticks, labels)
    axes.set(xlabel="predicted", ylabel="truth")
    for (row, column), value in np.ndenumerate(share):
        text = f"{percent(value, 0)}\n{confusion[row, column]}"
        axes.text(column, row, text, ha="center", va="center", color="white" if value > 0.5 else "black")
    figure.colorbar(image, label="share of the true class")
    return figure


def _identity(path: Path) -> str:
    """Return the W&B id of a run folder: kept there, so that a resumed fit continues its run."""
    kept = path / WANDB_ID
    if not kept.exists():
        kept.write_text(secrets.token_hex(4))
    return kept.read_text()


def _key_configured() -> bool:
    """Tell whether W&B would log in to its server, found as W&B does it, without asking it to: it would prompt."""
    import wandb
    from wandb.sdk.lib import wbauth

    try:
        settings = wandb.Settings()
        folder = Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb"))
        settings.settings_system = str(folder.expanduser() / "settings")
        settings.update_from_system_settings()  # where `wandb login --host` keeps the server
        settings.update_from_env_vars(dict(os.environ))
        if settings.mode in ("offline", "disabled", "dryrun"):
            return False
        key = settings.api_key or settings.identity_token_file or wbauth.read_netrc_auth(host=settings.base_url)
        return bool(key)
    except Exception:  # an address or a key that is not valid: W&B reports it at its start
        return True


def finish(failed: bool) -> None:
    """End the W&B run of this process, if there is one: everything is on disk or uploaded when this returns."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        with showing("The end of the W&B run"):
            wandb.finish(exit_code=int(failed))


def silence() -> None:
    """Keep W&B from printing; ``ser`` prints in one line where the run is."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
