"""The options of verbs of our own, and their parser, which loads at once: help lists them without loading torch.

What crossval and data have beside the options of a fit is added to the parser that these verbs parse with, and to the
one that prints their help.
"""

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from ser.errors import UserError
from ser.settings.names import meant

ALL = "All options of a fit: ser fit --help."


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which refuses abbreviated options and raises instead of exiting."""

    def __init__(self, verb: str, description: str) -> None:
        super().__init__(prog=f"ser {verb}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Report a mistake.

        Raises:
            UserError: Always.
        """
        if found := re.match(r"unrecognized arguments: (-[^\s=]+)", message):
            options = [option for action in self._actions for option in action.option_strings]
            message = f"There is no option {found[1]!r}.{meant(found[1], options)}"
            raise UserError(f"{message} See {self.prog} --help.")
        raise UserError(f"{self.prog}: {message}; see {self.prog} --help.")


CLUSTER = "run on a Dask cluster instead: tcp://HOST:PORT of its scheduler, or the scheduler's file"


def add_crossval(parser: argparse.ArgumentParser, int_or_null: Any = int, str_or_null: Any = str) -> None:
    """Add the options of a cross-validation; argparse knows no types such as ``int | None``."""
    parser.add_argument("--folds", type=str, default="all", help="all, or numbers of folds, as in 0,1,2")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each fold, from --seed_everything on")
    parser.add_argument(
        "--jobs",
        type=int_or_null,
        help="fits at once, which share the cores, or the GPUs; null is one, or one for each GPU",
    )
    parser.add_argument("--cluster", type=str_or_null, metavar="ADDRESS", help=CLUSTER)


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options of a description of a corpus."""
    parser.add_argument("--format", choices=["text", "json"], default="text", help="for people, or for machines")
    parser.add_argument("--pictures", type=Path, help="save PNG pictures to this folder")


def crossval() -> ArgumentParser:
    """Return the parser that prints the help of ``ser crossval``."""
    parser = ArgumentParser(
        "crossval",
        "Run every fold of the protocol, and resume what was interrupted. Also takes the options of ser fit.",
    )
    parser.usage = "%(prog)s [options] [options of ser fit]"
    parser.epilog = ALL
    add_crossval(parser)
    return parser


def data() -> ArgumentParser:
    """Return the parser that prints the help of ``ser data``."""
    parser = ArgumentParser("data", "Describe what a fit with the same --config and --data would see.")
    parser.usage = "%(prog)s [options]"
    parser.epilog = "The corpora: ser data --data.help. The options of one, as for ser fit: ser data --data.help NAME."
    parser.add_argument("-c", "--config", metavar="FILE", help="the config of a fit, or of a run")
    parser.add_argument("--data", metavar="NAME", help="the corpus; its options are --data.root and so on")
    add_data(parser)
    return parser


def sweep() -> ArgumentParser:
    """Return the parser of ``ser sweep``."""
    parser = ArgumentParser(
        "sweep",
        "Search settings by their validation UAR, as a W&B sweep file describes. The same command resumes a sweep, or "
        "joins one that runs elsewhere with the same --storage.",
    )
    parser.usage = "%(prog)s FILE --count N [options] [-- options of ser fit]"
    parser.epilog = ALL
    parser.add_argument("file", type=Path, help="the sweep file, such as sweeps/cornn.yaml")
    parser.add_argument("--count", type=int, required=True, help="trials the study is to have when this ends")
    parser.add_argument(
        "--jobs",
        type=int,
        help="trials at once, which share the cores, or the GPUs; one, or one for each GPU if left out",
    )
    parser.add_argument("--cluster", metavar="ADDRESS", help=CLUSTER)
    parser.add_argument(
        "--storage", metavar="URL", help="PostgreSQL or MySQL, for several machines; SQLite if left out"
    )
    parser.add_argument("--folds", help="all, or numbers such as 0,1,2: score by their mean; one fold if left out")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="folder of all experiments")
    parser.add_argument("--name", help="of the study and its experiment; sweep-<file> if left out")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the search (default 1): with one job, it repeats the same trials"
    )
    return parser
