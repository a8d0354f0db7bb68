"""The runs of a cross-validation: which are finished, to be resumed or to be started, all with the same settings."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import yaml

from ser.errors import UserError
from ser.parallel import Workers
from ser.protocols.splits import PARTITIONS
from ser.runs.fits import Ended, Fit, run_side_by_side
from ser.runs.folder import RunFolder, StoredRun, read_run
from ser.runs.scores import in_words
from ser.runs.settings import FOLD_AND_SEED, Changed, differences
from ser.storage import write_atomically


class Plan(Protocol):
    """The options of a fit, and what they construct."""

    datamodule: Any
    trainer: Any
    config: Any
    config_text: str
    run_folder: RunFolder


@dataclass(frozen=True)
class Job:
    """One fold with one seed."""

    fold: int
    tests: str
    seed: int

    def __str__(self) -> str:
        return f"fold {self.fold} ({self.tests}), seed {self.seed}"


class FoldRuns:
    """The runs of one cross-validation: which are finished, to be resumed or to be started.

    Args:
        cli: The options of a fit, and what they construct.
        folds: Numbers of folds, or "all".
        seeds: Runs of each fold.

    Attributes:
        names: What each of the protocol's folds tests.
        folds: Numbers of the folds to run.
        jobs: Every fold with the first seed, then with the next.
        settings: The config that all folds share.
        foreign: Runs of these folds and seeds with other settings or another corpus, which are not used.

    Raises:
        UserError: A fold is impossible, or runs of this cross-validation exist that have other settings.
    """

    def __init__(self, cli: Plan, folds: str, seeds: int) -> None:
        self.cli = cli
        self.corpus = cli.datamodule
        self.experiment = cli.run_folder.experiment
        self.settings: dict[str, Any] = yaml.safe_load(cli.config_text)
        self.names: list[str] = self.corpus.protocol.folds(self.corpus.table)
        self.folds = fold_numbers(folds, self.names)
        self._check_folds()
        first = cli.config.fit.seed_everything
        self.jobs = [Job(fold, self.names[fold], seed) for seed in range(first, first + seeds) for fold in self.folds]
        self.foreign: dict[Path, list[Changed]] = {}
        self._check_runs()

    def folder(self, job: Job) -> RunFolder:
        """Return the folder of a run."""
        return RunFolder(self.experiment, f"fold{job.fold}-seed{job.seed}")

    def finished(self, job: Job) -> StoredRun | None:
        """Return the run if it is finished."""
        finished = [run for run in self._own(job) if (run / "predictions.csv").exists()]
        return read_run(max(finished, key=lambda run: (run / "predictions.csv").stat().st_mtime)) if finished else None

    def resumable(self, job: Job) -> bool:
        """Return whether ``--ckpt_path last`` finds a fit of this job."""
        folder = self.folder(job)
        return folder.last_checkpoint is not None and folder.newest in self._own(job)

    def fit(self, job: Job) -> Fit:
        """Return the fit that starts or resumes a run."""
        folder = self.folder(job)
        experiment = self.experiment.relative_to(self.cli.config.fit.run.root)
        arguments = ["fit", "--config", str(self.config_file), "--run.experiment", str(experiment)]
        arguments += ["--run.name", folder.name, "--data.fold", str(job.fold), "--seed_everything", str(job.seed)]
        if self.resumable(job):
            arguments += ["--ckpt_path", "last"]
        return Fit(str(job), arguments, folder, self.experiment / "logs" / f"{folder.name}.log")

    @property
    def config_file(self) -> Path:
        """The config that all folds share."""
        return self.experiment / "crossval.yaml"

    def prepare(self) -> None:
        """Compute the features once, before the folds run, and write the config."""
        self.corpus.fold = self.folds[0]
        self.corpus.prepare_data()
        write_atomically(self.config_file, self.cli.config_text.encode())

    def run(self, jobs: Sequence[Job], workers: Workers) -> dict[Job, Ended]:
        """Run fits, and return those that failed.

        Args:
            jobs: Which.
            workers: Where.
        """
        fits = {str(job): job for job in jobs}
        failed: dict[Job, Ended] = {}
        for fit, ended in run_side_by_side([self.fit(job) for job in jobs], workers, self._epochs()):
            job = fits[fit.name]
            run = self.finished(job) if ended.failure is None else None
            if run is not None:
                outcome = f"{in_words(run.test.scores())} after {run.metrics['fit']['epochs']} epochs"
            else:
                failure = ended.failure or "no checkpoint was chosen, so none was tested"
                known = failure in {earlier.failure for earlier in failed.values()}
                failed[job] = replace(ended, failure=failure)
                outcome = "failed in the same way" if known else f"failed: {failure}"
            print(f"{job}: {outcome} ({ended.seconds:.0f} s)", flush=True)
        return failed

    def _epochs(self) -> int | None:
        epochs = self.cli.trainer.max_epochs
        return epochs if epochs is not None and epochs > 0 else None

    def _check_folds(self) -> None:
        problems = []
        for number in self.folds:
            try:
                self.corpus.fold_number(number).check()
            except UserError as error:
                problems.append((number, error))
        if problems:
            bad = {number for number, _ in problems}
            sound = ",".join(str(number) for number in self.folds if number not in bad)
            advice = f"\nLeave out what cannot be tested with --folds {sound}." if sound else ""
            raise UserError("\n".join(f"Fold {number}: {error}" for number, error in problems) + advice)

    def _check_runs(self) -> None:
        before = yaml.safe_load(self.config_file.read_text()) if self.config_file.exists() else {}
        changed: Sequence[object] = differences(self.settings, before, FOLD_AND_SEED)
        if before and changed:
            found = [runs[0] for job in self.jobs if (runs := self._own(job, before))]
        else:
            newest = {job: runs[-1] for job in self.jobs if (runs := self._own(job))}
            otherwise = {run: lines for job, run in newest.items() if (lines := self._other_utterances(job, run))}
            found, changed = list(otherwise), next(iter(otherwise.values()), [])
        if found:
            raise UserError(
                f"{len(found)} of {len(self.jobs)} runs in {self.experiment} have other settings than those given now. "
                f"In {found[0].name}:\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\nGive the settings of these runs, or run in another experiment "
                "(--run.experiment NAME), or remove their folders."
            )

    def _own(self, job: Job, settings: Mapping[str, Any] | None = None) -> list[Path]:
        """Return the runs of a job that have started and have some settings, by default those given."""
        wanted = dict(settings or self.settings)
        wanted["seed_everything"] = job.seed
        wanted["data"] = {**wanted["data"], "init_args": {**wanted["data"]["init_args"], "fold": job.fold}}
        own = []
        for run in sorted(self.experiment.glob(f"fold{job.fold}-seed{job.seed}*")):
            begun = (run / "predictions.csv").exists() or (run / "checkpoints/last.ckpt").exists()
            if not begun or not re.fullmatch(rf"fold{job.fold}-seed{job.seed}(-\d+)?", run.name):
                continue
            config, protocol = run / "config.yaml", run / "protocol.json"
            changes = differences(wanted, yaml.safe_load(config.read_text()) if config.exists() else {})
            corpus = json.loads(protocol.read_text())["corpus"] if protocol.exists() else self.corpus.name
            if corpus != self.corpus.name:
                changes.append(Changed("corpus", corpus, self.corpus.name))
            if not changes:
                own.append(run)
            elif settings is None:
                self.foreign[run] = changes
        return own

    def _other_utterances(self, job: Job, folder: Path) -> list[str]:
        """Describe how the utterances of a run differ from those of the corpus now."""
        now = self.corpus.fold_number(job.fold)
        then = json.loads((folder / "protocol.json").read_text())
        if then["fingerprint"] == now.fingerprint:
            return []
        lines = []
        if then["labels"] != self.corpus.labels:
            lines.append(f"emotions: {', '.join(then['labels'])}, now {', '.join(self.corpus.labels)}")
        described = now.description()
        for part in PARTITIONS:
            before, after = set(then[part]["files"]), set(described[part]["files"])
            for files, what in ((before - after, "no longer there"), (after - before, "new")):
                if files:
                    lines.append(f"{part}: {len(files)} files are {what}, such as {min(files)}")
        return lines or ["recordings or their labels have changed (the fingerprints differ)"]


def fold_numbers(folds: str, names: Sequence[str]) -> list[int]:
    """Parse numbers of folds.

    Raises:
        UserError: There is no such fold.
    """
    if folds == "all":
        return list(range(len(names)))
    chosen = sorted({number.strip() for number in folds.strip("[]").split(",")})
    unknown = [number for number in chosen if number not in map(str, range(len(names)))]
    if unknown:
        raise UserError(
            f"There is no fold {', '.join(map(repr, unknown))}: the protocol makes {len(names)} folds here, 0 to "
            f"{len(names) - 1} (testing {', '.join(names)}). Give --folds all, or some of them, as in --folds 0,1."
        )
    return sorted(map(int, chosen))
