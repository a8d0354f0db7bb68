"""``ser crossval``: every fold of a protocol, each a fit in a process of its own, and their summary."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ser.cli import arguments
from ser.cli.fit import SerCLI, check_seed, prepared
from ser.errors import UserError, cannot_create
from ser.evaluation.crossval import FoldRuns, Job
from ser.evaluation.summary import Summary, summarise
from ser.evaluation.summary_table import print_summary
from ser.parallel import Machine, Workers, connect, share_machine
from ser.runs.fits import Ended, interrupted_by_sigterm
from ser.runs.folder import RunFolder, StoredRun, table_as_csv
from ser.runs.scores import SCORES
from ser.storage import write_atomically
from ser.training.tracking import WandbLogger

NAMED = 5  # settings in which a run differs


def run(args: Sequence[str]) -> None:
    """Run the verb.

    Args:
        args: "crossval" and its options.

    Raises:
        UserError: Bad input, or every fold failed because of it.
        SystemExit: With code 1 if a fold failed.
    """
    with prepared():
        cli = CrossvalCLI(["fit", *args[1:]])
        plan = FoldRuns(cli, cli.folds, cli.seeds)
        with _alone(plan.experiment):
            failed = _run_missing(plan, cli)
            runs = {job: stored for job in plan.jobs if (stored := plan.finished(job)) is not None}
            if runs:
                _conclude(plan, list(runs.values()), failed)
    if failed:
        print(f"\n{len(failed)} of {len(plan.jobs)} runs failed; the same command retries them:", file=sys.stderr)
        for failure in dict.fromkeys(ended.failure for ended in failed.values()):
            alike = [job for job, ended in failed.items() if ended.failure == failure]
            print(f"  {'; '.join(map(str, alike))}: {failure}", file=sys.stderr)
            print(f"    see {plan.fit(alike[0]).log}", file=sys.stderr)
        raise SystemExit(1)


class PlanningCLI(SerCLI):
    """Parses the options of a fit and constructs its objects, but leaves training to other processes."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the verb whose options are parsed."""
        return {"fit": LightningCLI.subcommands()["fit"]}

    def before_fit(self) -> None:
        """Check that there is a validation."""
        self._check_validation()

    def fit(self, **_: Any) -> None:
        """Do not fit."""

    def after_fit(self) -> None:
        """Print nothing: there is no run."""

    @contextmanager
    def workers(self, cluster: str | None, jobs: int | None, experiment: Path) -> Iterator[Workers]:
        """Provide what runs the fits, and computes the features: this machine or a cluster.

        Args:
            cluster: See :func:`ser.parallel.connect`; None is this machine.
            jobs: Fits at once on this machine; None is one, or one for each GPU.
            experiment: Folder that exists.

        Raises:
            UserError: The cluster cannot be used.
        """
        with interrupted_by_sigterm():
            if cluster is None:
                with Machine(share_machine(jobs or max(1, len(self._gpus)), self._gpus)) as machine:
                    yield machine
                return
            if jobs is not None:
                raise UserError(f"--jobs is {jobs}, but a cluster runs as many fits as its workers take: leave it out.")
            corpus = self.datamodule
            corpus.cache_dir.mkdir(parents=True, exist_ok=True)
            with connect(cluster) as connected:
                written = {"--run.root": experiment, "--data.cache_dir": corpus.cache_dir}
                connected.check(written, {"--data.root": corpus.locate()})
                corpus.cluster = connected
                yield connected

    @property
    def _gpus(self) -> list[str]:
        """Ids of the GPUs to be dealt out to fits; none where there are none, or a fit uses several by itself."""
        if self.trainer.strategy.root_device.type != "cuda" or self._config.trainer.devices != "auto":
            return []
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        return visible.split(",") if visible else list(map(str, range(self.trainer.accelerator.auto_device_count())))


class CrossvalCLI(PlanningCLI):
    """The options of a fit and those of a cross-validation."""

    folds: str
    seeds: int
    jobs: int | None
    cluster: str | None

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a cross-validation."""
        arguments.add_crossval(parser, int | None, str | None)
        super().add_arguments_to_parser(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and leave only the options of a fit in the config."""
        super().parse_arguments(parser, args)
        own = ("folds", "seeds", "jobs", "cluster")
        self.folds, self.seeds, self.jobs, self.cluster = (self._config.pop(name) for name in own)

    @property
    def _config(self) -> Any:
        return self.config.fit

    def before_fit(self) -> None:
        """Check the options that a cross-validation restricts."""
        super().before_fit()
        config = self._config
        for name, value in {"seeds": self.seeds, "jobs": self.jobs}.items():
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1.")
        if config.test_checkpoint == "none":
            raise UserError("test_checkpoint is none, but a cross-validation tests every fold: give best or last.")
        if config.trainer.fast_dev_run:
            raise UserError("fast_dev_run leaves no results to summarise; use it with ser fit.")
        if config.ckpt_path not in (None, "last"):
            raise UserError(
                "ckpt_path names one checkpoint, but every fold has its own; leave it out. Folds resume by themselves."
            )
        if isinstance(config.seed_everything, bool):
            raise UserError(f"seed_everything is {config.seed_everything}; a cross-validation needs a number.")
        check_seed(config.seed_everything, self.seeds)


@contextmanager
def _alone(experiment: Path) -> Iterator[None]:
    """Lock an experiment against other cross-validations."""
    lock = FileLock(experiment / "logs" / ".lock", timeout=0)  # released by the system when this process ends
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Another ser crossval is running in {experiment}; wait for it, or give --run.experiment NAME."
        ) from error
    except OSError as error:
        raise cannot_create(experiment, error, name="--run.experiment") from error
    try:
        yield
    finally:
        lock.release()


def _run_missing(plan: FoldRuns, cli: CrossvalCLI) -> dict[Job, Ended]:
    missing = [job for job in plan.jobs if plan.finished(job) is None]
    resumed = sum(map(plan.resumable, missing))
    print(
        f"{len(plan.jobs)} runs in {plan.experiment}: {len(plan.jobs) - len(missing)} finished, {resumed} to resume, "
        f"{len(missing) - resumed} to start.",
        flush=True,
    )
    for run, changes in plan.foreign.items():
        print(f"{run.name} is not used: {'; '.join(map(str, changes[:NAMED]))}", flush=True)
    if not missing:
        return {}
    try:
        with cli.workers(cli.cluster, cli.jobs, plan.experiment) as workers:
            plan.prepare()
            failed = plan.run(missing, workers)
    except KeyboardInterrupt:
        print("\nInterrupted; the same command resumes.", file=sys.stderr)
        raise
    if len(failed) == len(plan.jobs) and all(ended.bad_input for ended in failed.values()):
        raise UserError("\n".join(dict.fromkeys(str(ended.failure) for ended in failed.values())))
    return failed


def _conclude(plan: FoldRuns, runs: Sequence[StoredRun], failed: dict[Job, Ended]) -> None:
    """Write, print and log the summary of the runs."""
    summary = summarise(runs)
    if len(plan.folds) < len(plan.names):
        only = f"only fold {', '.join(map(str, plan.folds))} of the protocol's {len(plan.names)}"
        summary = replace(summary, notes=[only, *summary.notes])
    failures = [{"fold": job.fold, "seed": job.seed, "failure": ended.failure} for job, ended in failed.items()]
    content = json.dumps({**summary.plain(), "failed": failures}, indent=2, ensure_ascii=False, allow_nan=False)
    results = plan.experiment / "crossval.json"
    write_atomically(results, content.encode(errors="surrogateescape"))
    write_atomically(plan.experiment / "predictions.csv", _predictions(runs))
    print()
    print_summary(summary)
    print(f"Results: {results}, {plan.experiment / 'predictions.csv'}")
    for logger in plan.cli.trainer.loggers:
        if isinstance(logger, WandbLogger):
            _track(logger, plan, summary)


def _predictions(runs: Sequence[StoredRun]) -> bytes:
    """Join the predictions of all runs, with the fold and the seed of each."""
    header: list[str] = []
    rows: list[list[object]] = []
    for run in runs:
        header, *own = csv.reader(io.StringIO(run.test.csv().decode(errors="surrogateescape")))
        rows += [[run.fold, run.seed, *row] for row in own]
    return table_as_csv(["fold", "seed", *header], rows)


def _track(logger: WandbLogger, plan: FoldRuns, summary: Summary) -> None:
    """Log the summary as a W&B run of its own in the group of the folds."""
    folder = RunFolder(plan.experiment, "summary")
    folder.path = plan.experiment / "summary"  # the same one each time
    folder.path.mkdir(exist_ok=True)
    plain = summary.plain()
    facts = {name: plain[name] for name in ("system", "corpus", "protocol", "synthetic", "labels", "notes")}
    facts |= {"folds": list(plan.folds), "seeds": [seed.number for seed in summary.seeds]}
    facts["fingerprints"] = [run.fingerprint for run in summary.runs]
    logger.attach(folder, [summary.corpus, summary.system, summary.protocol], lambda: facts, job_type="summary")
    logger.log_evaluation("pooled", summary.pooled)
    values: dict[str, float | None] = {}
    for name, score in plain["scores"].items():
        bounds = {f"pooled/{name}_{end}": score["interval"][end] for end in ("low", "high")}
        spreads = {f"folds/{name}_{spread}": score[spread] for spread in ("mean", "fold_deviation", "seed_deviation")}
        values |= bounds | spreads
    for label, recall in plain["recalls"].items():
        values |= {f"recall/{label}": recall["value"]}
        values |= {f"recall/{label}_{end}": recall["interval"][end] for end in ("low", "high")}
    rows = [
        {"fold": fold.number, "tests": fold.tests, "utterances": fold.utterances, "epochs": fold.epochs}
        | {name: fold.means[name] for name in SCORES}
        for fold in summary.folds
    ]
    logger.log_summary({name: value for name, value in values.items() if value is not None}, "folds", rows)
    if where := logger.where():
        print(where)
    if logger.offline:
        print(f"               all folds:        wandb sync {plan.experiment}/*/wandb/offline-run-*")
