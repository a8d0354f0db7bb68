"""``ser report``: runs and experiments as one self-contained HTML page."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ser.cli.arguments import ArgumentParser
from ser.errors import UserError
from ser.evaluation.experiments import Experiment, gather
from ser.report.mistakes import LIMIT_BYTES, LONGEST_S
from ser.report.page import page
from ser.storage import write_atomically


def run(args: Sequence[str]) -> None:
    """Run the verb.

    Args:
        args: "report" and its options.

    Raises:
        UserError: Bad input.
    """
    parser = ArgumentParser(
        "report",
        "Show runs in one self-contained HTML page: what was run, scores with intervals, confusion matrices, recalls, "
        "speakers, learning curves, calibration, errors, the paper's scores; several experiments are compared. Runs of "
        "one folder that differ in fold and seed only are one experiment.",
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUNS", help="folders of runs, or of experiments")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument("--title", help="of the page; systems and corpora if left out")
    parser.add_argument(
        "--audio",
        action="store_true",
        help=f"embed the recordings of the most confident errors, up to {LONGEST_S:.0f} s each and "
        f"{LIMIT_BYTES // 2**20} MiB in all; needs the corpus where protocol.json says it is",
    )
    options = parser.parse_args(args[1:])
    if not options.runs:
        raise UserError("No run is given. Give folders of runs or experiments, as in ser report runs/cornn-emodb.")

    _check_output(options.output)
    experiments, left_out = gather(options.runs)
    for line in left_out:
        print(f"Left out: {line}", file=sys.stderr)
    for experiment in experiments:
        if experiment.apart:
            print(f"{experiment.name} is a separate experiment: it {experiment.apart}", file=sys.stderr)
    content = page(experiments, title=options.title or _title(experiments), left_out=left_out, audio=options.audio)
    try:
        write_atomically(options.output, content)
    except OSError as error:
        raise UserError(
            f"The report cannot be written to {options.output}: {error.strerror}. Choose another file with --output."
        ) from error
    names = ", ".join(experiment.name for experiment in experiments)
    print(f"Report on {names}: {options.output} ({len(content) / 2**20:.1f} MiB; open it in a browser)")


def _check_output(output: Path) -> None:
    """Check that the page can be written, before the work is done.

    Raises:
        UserError: It cannot.
    """
    if output.is_dir():
        raise UserError(f"--output {output} is a folder; give the name of the page, such as {output / 'report.html'}.")
    if output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {output} must end in .html.")
    parent = next(folder for folder in output.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(f"--output {output}: {parent} is not writable. Choose another folder.")


def _title(experiments: Sequence[Experiment]) -> str:
    systems = list(dict.fromkeys(experiment.summary.system for experiment in experiments))
    corpora = list(dict.fromkeys(experiment.summary.corpus for experiment in experiments))
    return f"{', '.join(systems)} on {', '.join(corpora)}"
