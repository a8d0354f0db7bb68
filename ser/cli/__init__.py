"""The command line: ``ser VERB ...``. This file imports nothing heavy, so that ``ser --help`` is fast."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from ser import __version__
from ser.cli.memory import keep_freed_memory
from ser.errors import JobEnded, UserError
from ser.terminal.streams import forgiving_output

VERBS = {
    "fit": "train a network, then test the selected checkpoint on an unseen speaker",
    "validate": "score a checkpoint on the validation speaker",
    "test": "score a checkpoint on the test speaker",
    "predict": "recognise the emotion of recordings with a checkpoint",
    "crossval": "fit every fold of a protocol, and say what they show together",
    "sweep": "search settings by their validation UAR, as a W&B sweep file says",
    "compare": "compare systems that were tested on the same utterances",
    "report": "show runs and experiments in one self-contained HTML page",
    "data": "describe a corpus as a fit sees it: utterances, speakers, files, splits and leaks",
    "cache": "list the caches of features, and remove old ones",
}
# Lightning's verbs; each of the others is a module.
LIGHTNING = {"fit", "validate", "test", "predict"}
# Verbs that do not load torch, and those whose help lists their own options, and points to that of fit for the others.
LIGHT = {"compare", "report", "cache"}
BESIDE_FITS = {"crossval", "sweep", "data"}
# Verbs that print their result and write no file.
PRINTED = {"data", "cache", "compare"}
# Options that ask for text, and environment variables with the number of a process of a job.
BRIEF = ("-h", "help", "--print_config")
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")

HELP = f"""usage: ser VERB [options]

Speech emotion recognition with speaker-disjoint evaluation.

verbs:
{chr(10).join(f"  {verb:10}{purpose}" for verb, purpose in VERBS.items())}

options:
  -h, --help   this help; after a verb, that verb's options
  --version    the version

examples:
  ser fit --config configs/cornn.yaml
  ser fit --config configs/cornn.yaml --data EmoDB --data.root DIR --data.fold 3
  ser crossval --config configs/cornn.yaml --data EmoDB --data.root DIR --seeds 5
  ser sweep sweeps/cornn.yaml --count 20 -- --data EmoDB --data.root DIR
  ser report runs/cornn-emodb --output report.html
  ser data --data EmoDB --data.root DIR --data.protocol SpeakerKFold
  ser predict --ckpt_path runs/cornn-emodb/fold3-seed1/checkpoints/best.ckpt --data AudioFolder --data.root DIR
"""


def main(args: Sequence[str] | None = None) -> int:
    """Run ``ser``.

    Args:
        args: Command-line arguments; None for those of the process.

    Returns:
        The exit code: 0, 2 for bad input, 130 after Ctrl-C, 143 after SIGTERM, 1 where another process was lost, or
        the result could not be printed.
    """
    with forgiving_output() as (out, _):
        args = list(sys.argv[1:] if args is None else args)
        code = _run(args)
        out.flush()
        if out.failure is None:
            return code
        print(f"ser: warning: some output could not be written: {out.failure.strerror}.", file=sys.stderr)
        return code or int(not PRINTED.isdisjoint(args[:1]))


def _run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    if args[0] == "--version":
        print(__version__)
        return 0
    try:
        if args[0] not in VERBS:
            close = difflib.get_close_matches(args[0], VERBS, n=1)
            meant = f" Did you mean {close[0]}?" if close else ""
            raise UserError(f"{args[0]!r} is not a verb.{meant} Verbs are {', '.join(VERBS)}; see ser --help.")
        if args[0] in BESIDE_FITS and not {"-h", "--help"}.isdisjoint(args[: (*args, "--").index("--")]):
            getattr(importlib.import_module("ser.cli.arguments"), args[0])().print_help()
            return 0
        # Idle threads of torch's pool sleep instead of spinning: as fast alone, and beside another process a training
        # step of an LSTM takes 2 s instead of 16.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        keep_freed_memory()
        first = all(os.environ.get(rank, "0") == "0" for rank in RANKS)
        slow = args[0] not in LIGHT and "torch" not in sys.modules
        if slow and first and not any(arg.partition("=")[0].endswith(BRIEF) for arg in args):
            print(f"ser {args[0]}: loading", file=sys.stderr, flush=True)
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())  # for the user's classes, as with python -m ser; it shadows nothing
        importlib.import_module(f"ser.cli.{'fit' if args[0] in LIGHTNING else args[0]}").run(args)
    except UserError as error:
        print(f"ser: error: {error}", file=sys.stderr)
        return 2
    except JobEnded as ended:
        print(f"ser: error: {ended}", file=sys.stderr)
        return ended.code
    except KeyboardInterrupt:
        print("ser: interrupted", file=sys.stderr)
        return 130
    return 0
