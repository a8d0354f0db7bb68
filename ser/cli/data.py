"""``ser data``: describes a corpus as a fit sees it, without training."""

from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from ser.cli import arguments
from ser.cli.configs import Configs
from ser.cli.explain import answer_help
from ser.cli.parser import Parser
from ser.data import SpeechCorpus
from ser.errors import UserError, user_error_behind
from ser.protocols.splits import PARTITIONS
from ser.runs.folder import SYNTHETIC
from ser.survey.corpus import survey, tolerant
from ser.terminal.streams import print_json
from ser.terminal.tables import PlainTable, side_by_side

NAMED = 10  # files of a kind in the terminal; --format json lists all
# Neither Any nor dict[str, Any]: the parser would construct the class of a class_path in it.
Ignored = dict | list | str | float | bool | None  # type: ignore[type-arg]
# Other options of a fit's config, which do not matter here.
OTHERS = [
    *("seed_everything", "trainer", "model", "optimizer", "lr_scheduler", "checkpoint", "early_stopping", "run"),
    *("test_checkpoint", "ckpt_path", "weights_only"),
]


def run(args: Sequence[str]) -> None:
    """Run the verb.

    Args:
        args: "data" and its options.

    Raises:
        UserError: Bad input.
    """
    parser = Parser(prog="ser data")
    parser.add_argument("-c", "--config", action="config")
    arguments.add_data(parser)
    parser.add_lightning_class_args(SpeechCorpus, "data", subclass_mode=True, required=True)
    for name in OTHERS:
        parser.add_argument(f"--{name}", type=Ignored, default=None, help="of fit; ignored here")
    answer_help(args)
    configs = Configs(args[1:])
    config = parser.parse_args(configs.arguments)
    try:
        corpus: SpeechCorpus = parser.instantiate(config).data
    except Exception as error:
        raise user_error_behind(error) or error from None
    if not corpus.labelled:
        raise UserError(f"ser data describes labelled corpora; {corpus.name} has no labels.")

    with configs.naming_corpus():
        description = survey(corpus)
    if config.format == "json":
        print_json(description)
    else:
        _print(description)
    if config.pictures is not None:
        from ser.survey.pictures import save_pictures  # Matplotlib takes a second to import

        saved = save_pictures(tolerant(corpus), config.pictures)
        if config.format == "text":
            print(f"Pictures: {', '.join(str(path) for path in saved)}")


def _print(description: dict[str, Any]) -> None:
    console = Console()
    durations = description["durations_s"]
    rates = ", ".join(f"{count} at {rate} Hz" for rate, count in description["sample_rates_hz"].items())
    print(
        f"{description['corpus']} in {description['root']}: {description['utterances']} utterances, "
        f"{durations['total'] / 3600:.2f} hours; {durations['min']:.2f} to {durations['max']:.2f} s, median "
        f"{durations['median']:.2f} s; {rates}. Licence: {description['licence']}."
    )
    for note in description["notes"]:
        print(f"Note: {note}")
    if description["synthetic"]:
        print(SYNTHETIC)
    _print_emotions(console, description)
    _print_speakers(console, description)
    for problem in ("damaged", "foreign", "clipped", "duplicates"):
        _print_files(problem, description[problem])
    _print_folds(console, description)
    print(f"Verdict: {description['verdict']}")


def _print_emotions(console: Console, description: dict[str, Any]) -> None:
    table = PlainTable(["emotion"], ["found", "published"])
    for emotion, (found, published) in description["emotions"].items():
        style = None if published in (None, found) else "bold yellow"
        table.add_row(emotion, str(found), "" if published is None else str(published), style=style)
    console.print(table)


def _print_speakers(console: Console, description: dict[str, Any]) -> None:
    names = max(map(cell_len, description["speakers"]))
    headers, legend = side_by_side(description["labels"], console.width - names - len(" female  all "))
    table = PlainTable(["speaker", "gender"], ["all", *headers], narrow=True)
    for speaker, row in description["speakers"].items():
        counts = (str(row["emotions"][emotion]) for emotion in description["labels"])
        table.add_row(speaker, row["gender"] or "", str(row["utterances"]), *counts)
    console.print(table)
    if legend:
        print(legend)


def _print_files(problem: str, files: Sequence[Any]) -> None:
    print(f"{problem}: {len(files) or 'none'}")
    for item in files[:NAMED]:
        match item:
            case {"file": file, "reason": reason}:
                print(f"  {file}: {reason}")
            case {"file": file, "samples": samples}:
                print(f"  {file}: {samples} samples at full scale")
            case _:
                print(f"  {' = '.join(item)}")
    if len(files) > NAMED:
        print(f"  and {len(files) - NAMED} more; --format json lists all")


def _print_folds(console: Console, description: dict[str, Any]) -> None:
    shown, number = description["folds_of_all"]
    of_all = f"; only the first {shown} were checked" if shown < number else ""
    print(f"{description['protocol']['class_path'].rpartition('.')[2]}, folds: {number}{of_all}")
    table = PlainTable(["fold", "tests", *PARTITIONS, "audit"])
    notes: dict[str, int] = {}
    for fold in description["folds"]:
        if "problem" in fold:
            table.add_row(str(fold["fold"]), fold["tests"], "", "", "", fold["problem"])
            continue
        sizes = (f"{fold[name]['utterances']} of {_named(fold[name]['speakers'])}" for name in PARTITIONS)
        numbers = ", ".join(str(notes.setdefault(note, len(notes) + 1)) for note in fold["notes"])
        verdict = ", ".join(f"{len(fold[kind])} {kind}" for kind in ("leaks", "faults") if fold[kind]) or "sound"
        table.add_row(str(fold["fold"]), fold["tests"], *sizes, verdict + (f", note {numbers}" if numbers else ""))
    console.print(table)
    for note, number in notes.items():
        print(f"Note {number}: {note}")
    stopped = [fold for fold in description["folds"] if fold.get("leaks") or fold.get("faults")]
    for fold in stopped[:NAMED]:
        for kind in ("leak", "fault"):
            for problem in fold[f"{kind}s"]:
                print(f"{kind.capitalize()} in fold {fold['fold']}: {problem}")
    if len(stopped) > NAMED:
        print(f"and {len(stopped) - NAMED} more folds; --format json lists all")


def _named(speakers: Sequence[str]) -> str:
    return " ".join(speakers) if len(speakers) <= 3 else f"{len(speakers)} speakers"
