"""Lightning's verbs, fit, validate, test and predict, wired for corpora, networks and run folders."""

import errno
import logging
import os
import pkgutil
import re
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ser.cli.configs import Configs
from ser.cli.explain import answer_help
from ser.cli.parser import Parser, could_not_construct
from ser.data import SpeechCorpus
from ser.errors import JobEnded, UserError, cannot_create, user_error_behind
from ser.protocols.splits import PARTITIONS
from ser.runs.folder import RunFolder, RunOptions
from ser.runs.recorder import RunRecorder, print_device
from ser.training.checkpoints import (
    AVERAGED,
    AtomicCheckpoints,
    BestCheckpoint,
    StopEarly,
    averaged,
    check_same_settings,
    defaults_of,
    history_of,
    read_checkpoint,
    source_of,
)
from ser.training.ranks import RESUME, check_number_of_processes, lost_peer, slurm
from ser.training.task import EmotionClassifier
from ser.training.tracking import WandbLogger, finish, silence

SEEDS = 2**32  # as many as NumPy takes
# Warnings of libraries about which a user can do nothing, or that ser has dealt with.
QUIET = (
    ".*does not have many workers.*",  # batches are read from the feature store in a millisecond
    ".*is smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*The dirpath has changed from.*",  # a test of a fit's checkpoint leaves a run folder of its own
    ".*Experiment logs directory .* exists.*",
    ".*LightningCLI's args parameter is intended to run from within Python.*",
    ".*called with Trainer configured with multiple `ModelCheckpoint`.*",  # the first is the one that is meant
    "The `srun` command is available on your system but is not used.*",  # on every login node
)


def run(args: Sequence[str]) -> None:
    """Run one of Lightning's verbs.

    Args:
        args: The verb and its options.

    Raises:
        UserError: Bad input.
        SystemExit: With code 2 for options that do not parse, 0 after ``--help`` and ``--print_config``.
    """
    with prepared():
        SerCLI(args=list(args))


@contextmanager
def prepared() -> Iterator[None]:
    """Silence the libraries, and turn those of their errors that a user can mend into one message.

    Raises:
        UserError: Bad input.
    """
    silence()
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high")  # TF32; on a CPU the setting takes a slow path
    for message in QUIET:
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    failed = True
    try:
        yield
        failed = False
    except MisconfigurationException as error:
        raise UserError(str(error)) from error
    except SIGTERMException as error:
        raise JobEnded(f"ended by SIGTERM. {RESUME}", code=128 + signal.SIGTERM) from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error  # which Lightning turns into exit code 1
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG and error.filename is not None:
            raise cannot_create(Path(error.filename), error, name="--run.name or --run.experiment") from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"The disk is full: {error.filename or 'a file of the run'} could not be written. Free some space and "
            "resume with --ckpt_path last, or choose another place with --run.root."
        ) from error
    except Exception as error:
        if wrapped := user_error_behind(error) or lost_peer(error):
            raise wrapped from None
        raise
    finally:
        finish(failed)


class SerCLI(LightningCLI):
    """LightningCLI whose labels and shapes are stated once, in the corpus, and linked from there to the model."""

    subcommand: str
    model: EmotionClassifier
    datamodule: SpeechCorpus

    def __init__(self, args: list[str]) -> None:
        self.checkpoint: dict[str, Any] | None = None
        self.source: dict[str, Any] | None = None
        self._verb = args[0]
        super().__init__(
            EmotionClassifier,
            SpeechCorpus,
            subclass_mode_data=True,
            save_config_callback=None,  # RunRecorder keeps the config
            trainer_class=Trainer,
            trainer_defaults={
                "logger": {"class_path": "ser.training.WandbLogger"},
                "max_epochs": 100,
                "log_every_n_steps": 1,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,  # RunRecorder prints it in a line
                # After BestCheckpoint, whose own last.ckpt, since Lightning 2.6, is the last of the best epochs.
                "callbacks": ModelCheckpoint(
                    filename="last", save_on_train_epoch_end=True, enable_version_counter=False
                ),
            },
            seed_everything_default=1,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"prog": "ser", "usage": "ser"},
            args=args,
        )

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Make the options of the verb that was called only: those of the others take 0.2 s."""
        if subcommand != self._verb:
            return self.init_parser(**kwargs)
        return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add optimiser, checkpoints, early stopping and the run folder, and link the model to the corpus."""
        parser.add_argument("--run", type=RunOptions, default=RunOptions(), help="folder and name of the run")
        parser.add_argument(
            "--test_checkpoint",
            type=Literal["best", "last", "none"],
            default="best",
            help="the checkpoint that fit tests at its end: the best by the monitored score, the last, or none",
        )
        parser.add_argument("--optimizer", type=OptimizerCallable, default={"class_path": "torch.optim.Adam"})
        parser.add_argument("--lr_scheduler", type=LRSchedulerCallable | None, default=None)
        parser.link_arguments("optimizer", "model.optimizer")
        parser.link_arguments("lr_scheduler", "model.lr_scheduler")
        parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
        parser.add_lightning_class_args(StopEarly, "early_stopping")
        parser.set_defaults(
            {
                "checkpoint.filename": "best",
                "checkpoint.monitor": "val/uar",
                "checkpoint.mode": "max",
                "checkpoint.enable_version_counter": False,
                # After the epoch rather than in its validation, so that a resumed fit begins with the next epoch.
                "checkpoint.save_on_train_epoch_end": True,
                "early_stopping.monitor": "val/uar",
                "early_stopping.mode": "max",
                "early_stopping.patience": 15,
            }
        )
        for fact, target in {
            "labels": "emotions",
            "num_classes": "net.init_args.num_classes",
            "feature_shape": "net.init_args.feature_shape",
        }.items():
            parser.link_arguments(f"data.{fact}", f"model.{target}", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a checkpoint given to validate, test or predict supplies the defaults of network and front-end."""
        answer_help(args)
        self.configs = Configs(args)
        verb, args = args[0], self.configs.arguments
        path = self.configs.option("ckpt_path")
        if path is not None and path not in ("best", "last"):
            self.checkpoint = read_checkpoint(Path(path), _named_in(f"{args} {self.configs.files}"))
            self.source = source_of(Path(path), self.checkpoint)
            if verb != "fit":
                self._subcommand_parsers[verb].set_defaults(defaults_of(self.checkpoint))
        elif verb != "fit" and not {"-h", "--help"} & set(args):
            raise UserError(f"{verb} needs a checkpoint: --ckpt_path runs/EXPERIMENT/RUN/checkpoints/best.ckpt")
        if verb in ("validate", "test"):
            self._subcommand_parsers[verb].set_defaults({"verbose": False})  # RunRecorder shows the scores
        super().parse_arguments(parser, args)
        check_seed(self.config[verb].seed_everything)

    def _parse_ckpt_path(self) -> None:
        """Keep the checkpoint from overriding the command line; parse_arguments has taken defaults from it."""

    def after_instantiate_classes(self) -> None:
        """Check that everything fits together before anything is written."""
        self.model.check_data(self.trainer, self.datamodule)
        self.model.system = self._system(self._config)
        if self.subcommand == "fit":
            self.model.check_fit(self.trainer)
        if self.checkpoint is not None:
            self._check(self.checkpoint)

    def _check(self, checkpoint: dict[str, Any]) -> None:
        self.model.check_checkpoint(checkpoint)
        self.model.check_unseen(history_of(checkpoint), self.datamodule, self.subcommand)

    def before_instantiate_classes(self) -> None:
        """Keep the config as the user composed it."""
        self._check_labelled()
        config = self._config.clone()
        if config.ckpt_path == "last":
            config.ckpt_path = None  # a run is repeated from the start
        self.config_text: str = self._parser(self.subcommand).dump(config, skip_unset=False, skip_link_targets=True)

    def instantiate_classes(self) -> None:
        """Construct the objects; the corpus is read, since the model follows from it."""
        with self.configs.naming_corpus():
            super().instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Connect the run folder with the trainer, its callbacks and its loggers."""
        config = self._config
        self.run_folder = self._run_folder(config)
        callbacks = self.config_init[self.subcommand].trainer.callbacks or []
        callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
        if not config.trainer.fast_dev_run:
            callbacks = [RunRecorder(self.run_folder, self.config_text, self.source), *callbacks]
        plugins = config.trainer.plugins or []
        plugins = [AtomicCheckpoints(), *(plugins if isinstance(plugins, list) else [plugins])]
        if not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            plugins += slurm()
        if os.environ.get("WANDB_MODE") == "disabled":
            kwargs["logger"] = False
        try:
            trainer = super().instantiate_trainer(
                callbacks=callbacks,
                default_root_dir=str(self.run_folder.experiment),
                plugins=plugins,
                **kwargs,
            )
        except (MisconfigurationException, TypeError, ValueError) as error:
            given = {
                name: config.trainer[name] for name in ("accelerator", "devices", "num_nodes", "strategy", "precision")
            }
            raise could_not_construct("Trainer", given, error) from error
        check_number_of_processes(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                tags = [self.datamodule.name, self._system(config), type(self.datamodule.protocol).__name__]
                logger.attach(self.run_folder, tags, self._facts)
        return trainer

    def before_fit(self) -> None:
        """Resume the newest run if asked to."""
        config = self.config_init[self.subcommand]
        if config.ckpt_path == "last":
            checkpoint = self.run_folder.last_checkpoint
            if checkpoint is None:
                rank_zero_only(print)(
                    f"There is no run {self.run_folder.experiment / self.run_folder.name} to resume; starting one."
                )
            else:
                check_same_settings(self.config_text, self.run_folder.path / "config.yaml")
                last = read_checkpoint(checkpoint, _named_in(self.config_text))
                self._check(last)
                _check_same_utterances(history_of(last), self.datamodule, checkpoint.parents[1])
            config.ckpt_path = checkpoint
        self._check_validation()
        print_device(self.trainer)

    def before_test(self) -> None:
        """Print the device before features are computed."""
        print_device(self.trainer)

    before_validate = before_predict = before_test

    def after_fit(self) -> None:
        """Score the chosen checkpoint on validation, test it, and print where everything is."""
        which = chosen = self._config.test_checkpoint
        if chosen == "none":
            chosen = "best"
        if averaged(self.trainer):
            chosen = str(self.run_folder.path / "checkpoints" / AVERAGED)
            if which != "none":
                rank_zero_only(print)("Testing the averaged weights, which no epoch's checkpoint holds.")
        if chosen == "best" and not getattr(self.trainer.checkpoint_callback, "best_model_path", None):
            rank_zero_only(print)("No checkpoint was kept, so none is tested.")
        elif not self._config.trainer.fast_dev_run and not self.trainer.interrupted:
            # Lightning's WeightAveraging loads the weights before averaging wherever it has been part of a fit.
            callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
            callbacks[:] = [callback for callback in callbacks if not isinstance(callback, WeightAveraging)]
            scored = {"datamodule": self.datamodule, "ckpt_path": chosen, "verbose": False}
            self.trainer.validate(self.model, **scored)
            if which != "none":
                self.trainer.test(self.model, **scored)
        self._print_where()

    def after_test(self) -> None:
        """Print where everything is."""
        self._print_where()

    after_validate = after_test

    def _check_labelled(self) -> None:
        corpus = pkgutil.resolve_name(self._config.data.class_path)
        if self.subcommand != "predict" and not corpus.labelled:
            raise UserError(
                f"{self.subcommand} needs recordings with known emotions and speakers: give --data CORPUS "
                "--data.root DIR, such as --data EmoDB, or --data Table for a corpus of your own. "
                f"{corpus.__name__} is for ser predict."
            )

    def _check_validation(self) -> None:
        if self._config.trainer.limit_val_batches == 0 and not self._config.trainer.fast_dev_run:
            raise UserError("limit_val_batches is 0, but validation selects the checkpoint: give more.")

    @property
    def _config(self) -> Namespace:
        """The verb's config."""
        config: Namespace = self.config[self.subcommand]
        return config

    def _system(self, config: Namespace) -> str:
        trained = self.source["system"] if self.source is not None and self.subcommand != "fit" else None
        system: str = trained or config.run.system or config.model.net.class_path.rsplit(".")[-1].lower()
        return system

    def _run_folder(self, config: Namespace) -> RunFolder:
        options = config.run
        experiment = options.experiment or f"{_as_folder(self._system(config))}-{self._corpus_folder()}"
        what = f"fold{self.datamodule.fold}-seed{config.seed_everything}"
        if self.subcommand == "predict":
            place = self.datamodule.locate().resolve()
            what = place.stem if place.is_file() else place.name
        name = options.name or what
        if self.subcommand != "fit":
            name = f"{self.subcommand}-{name}"
        resume = self.subcommand == "fit" and config.ckpt_path == "last"
        return RunFolder(Path(options.root, experiment), name, resume)

    def _corpus_folder(self) -> str:
        """Return the corpus's part of an experiment's name: its given name, or its class."""
        corpus = self.datamodule
        published = corpus.name == type(corpus).name or not corpus.labelled
        return type(corpus).__name__.lower() if published else _as_folder(corpus.name)

    def _facts(self) -> dict[str, Any]:
        """Return what runs can be filtered by: seed, corpus, protocol and model."""
        corpus = self.datamodule
        facts = {"seed": self._config.seed_everything, "corpus": corpus.name, "labels": corpus.labels}
        if self.source is not None:
            facts["model"] = self.source
        if self.subcommand == "predict":
            return facts
        protocol = corpus.protocol_description()
        local = ("root", "class_path", "found_and_published", "left_out", "genders")
        facts |= {key: value for key, value in protocol.items() if key not in (*local, *PARTITIONS)}
        return facts | {name: {key: protocol[name][key] for key in ("utterances", "speakers")} for name in PARTITIONS}

    def _print_where(self) -> None:
        if not self.run_folder.reserved:
            return
        print(f"Run folder: {self.run_folder.path}")
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger) and (where := logger.where()):
                print(where)


def _check_same_utterances(history: Sequence[dict[str, Any]], corpus: SpeechCorpus, run: Path) -> None:
    """Check that the corpus and its split are still those of the fit that is resumed.

    Raises:
        UserError: They have changed.
    """
    if history and not corpus.is_fit(history[-1]):
        raise UserError(
            f"The run in {run} was trained on another split of {corpus.name}: recordings, labels or the split have "
            "changed since (the fingerprints differ), so it cannot be resumed. Restore them, or leave --ckpt_path out "
            "to start another run."
        )


def _as_folder(name: str) -> str:
    """Turn any name into that of a folder."""
    return re.sub(r"[^\w.+-]+", "-", name).strip(".-") or "unnamed"


def _named_in(text: str) -> set[str]:
    """Return the class paths that a command or a config names."""
    return set(re.findall(r"[\w.]+\.\w+", text))


def check_seed(seed: int | bool, runs: int = 1) -> None:
    """Check the seeds of one or more runs.

    Args:
        seed: Of the first run.
        runs: Number of runs, each with the next seed.

    Raises:
        UserError: One is negative, or has over 32 bits.
    """
    if not 0 <= seed <= SEEDS - runs:
        last = f", so the last run would have {seed + runs - 1}" if runs > 1 else ""
        raise UserError(f"seed_everything is {seed}{last}; seeds are whole numbers from 0 to {SEEDS - 1}.")
