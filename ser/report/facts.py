"""What was run, in plain words: corpus, protocol, features, training, and what to know before reading the scores."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ser.evaluation.summary import Summary, in_a_line
from ser.report.parts import sentence
from ser.runs.folder import SYNTHETIC, StoredRun

FEW = 6  # folds that are named one by one
Fact = tuple[str, list[str]]  # a term, and the lines that say what it is here


def facts(summary: Summary) -> list[Fact]:
    """Return what was run, from the run folders' ``protocol.json``, ``config.yaml`` and ``metrics.json``."""
    runs = summary.runs
    protocol = runs[0].protocol
    found = [
        ("System", [_system(runs[0])]),
        ("Corpus", _corpus(protocol)),
        ("Emotions", _emotions(protocol)),
        ("Protocol", [f"{in_a_line(protocol['protocol'])}, {_folds(summary)}.", *sides(runs)]),
        ("Features", _features(protocol["front_end"])),
        ("Training", _training(runs)),
        ("Fingerprint", [_fingerprints(runs)]),
        ("Run folders", list(dict.fromkeys(str(run.path.parent) for run in runs))),
    ]
    return [(term, lines) for term, lines in found if lines]


def sides(runs: Sequence[StoredRun]) -> list[str]:
    """Say who was trained on, chosen on and tested, and whether they were strangers to each other."""
    train, val = (_side(runs, side) for side in ("train", "val"))
    scored = _range(runs, lambda run: len(run.test.files)), _range(runs, lambda run: len(set(run.test.speakers)))
    test = _utterances(*scored)
    protocol = runs[0].protocol
    if not runs[0].trained_here:
        return [f"Each run tested a checkpoint on {test}; nothing was trained here."]
    if protocol["test_is_validation"]:
        said = f"Each run trained on {train} and was tested on the same {test} that its checkpoint was chosen on."
    else:
        said = f"Each run trained on {train}, chose its checkpoint on {val} and was tested on {test}."
    if protocol["speaker_disjoint"]:
        return [said, "Nobody was on two sides: the network had never heard the voices it was tested on."]
    return [said, "The same people were on several sides: the network had heard the voices it was tested on."]


def warnings(summary: Summary) -> list[str]:
    """Return what must be known before the scores are read."""
    protocol = summary.runs[0].protocol
    found = []
    if summary.synthetic:
        found.append(SYNTHETIC)
    if not protocol["speaker_disjoint"] and summary.runs[0].trained_here:
        found.append(
            "The protocol shares speakers between training and test: these scores say nothing of people whom the "
            "network has never heard, and are usually far higher than for them."
        )
    if protocol["test_is_validation"] and summary.runs[0].trained_here:
        found.append(
            "The checkpoint was chosen on the utterances that it was tested on, as in the paper: the scores are of the "
            "luckiest epoch."
        )
    published = {emotion: pair for emotion, pair in protocol["found_and_published"].items() if None not in pair}
    differs = [f"{name} {found} of {of}" for name, (found, of) in published.items() if found != of]
    if differs:
        found.append(f"This copy of {summary.corpus} is not as published: {', '.join(differs)} utterances.")
    if left_out := protocol["left_out"]:
        files = "file was" if len(left_out) == 1 else "files were"
        found.append(f"{len(left_out)} {files} left out, such as {left_out[0]['file']}.")
    return [*found, *map(sentence, summary.notes)]


def _system(run: StoredRun) -> str:
    if not run.config:
        return run.system if run.model else "unknown"
    size = run.metrics.get("fit", {}).get("trainable_parameters")
    parameters = f", {size:,} trainable parameters" if size else ""
    return f"{run.system} ({run.config['model']['net']['class_path']}){parameters}"


def _corpus(protocol: Mapping[str, Any]) -> list[str]:
    utterances = sum(found or 0 for found, _ in protocol["found_and_published"].values())
    speakers = len(protocol["genders"])
    return [
        f"{protocol['corpus']}: {utterances} utterances of {speakers} speakers, in {protocol['root']}",
        f"Licence: {protocol['licence']}",
    ]


def _emotions(protocol: Mapping[str, Any]) -> list[str]:
    merged = [f"{own} counts as {name}" for own, name in protocol["merge"].items()]
    return [", ".join(protocol["labels"]) + (f" ({'; '.join(merged)})" if merged else "")]


def _folds(summary: Summary) -> str:
    seeds = [seed.number for seed in summary.seeds if seed.number is not None]
    folds = summary.folds
    if len(folds) > FEW:
        said = f"{len(folds)} folds, testing {folds[0].tests} to {folds[-1].tests}"
    else:
        said = f"fold{_s(folds)} " + ", ".join(f"{fold.number} (tests {fold.tests})" for fold in folds)
    return f"{said}; seed{_s(seeds)} {', '.join(map(str, seeds))}" if seeds else said


def _side(runs: Sequence[StoredRun], side: str) -> str:
    utterances = _range(runs, lambda run: run.protocol[side]["utterances"])
    speakers = _range(runs, lambda run: len(run.protocol[side]["speakers"]))
    return _utterances(utterances, speakers)


def _utterances(count: str, speakers: str) -> str:
    return f"{count} utterances of {speakers} speaker{'s' if speakers != '1' else ''}"


def _range(runs: Sequence[StoredRun], count: Callable[[StoredRun], int]) -> str:
    counts = [count(run) for run in runs]
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _features(front_end: Mapping[str, Any]) -> list[str]:
    before = ", ".join(f"{name}={value}" for name, value in front_end["preprocess"].items() if value is not None)
    return [in_a_line(front_end["features"]), f"of recordings preprocessed with {before}"]


def _training(runs: Sequence[StoredRun]) -> list[str]:
    fits = [run.metrics["fit"] for run in runs if "fit" in run.metrics]
    if not fits or not runs[0].config:
        return []
    epochs = sorted(fit["epochs"] for fit in fits)
    seconds = sum(fit["seconds_per_epoch"] for fit in fits) / len(fits)
    lasted = str(epochs[0]) if epochs[0] == epochs[-1] else f"{epochs[0]} to {epochs[-1]}"
    config = runs[0].config
    best = config.get("test_checkpoint") == "best"
    chosen = f"the epoch with the best {config['checkpoint']['monitor']}" if best else "the last epoch"
    return [
        f"{lasted} epochs of {seconds:.1f} s on {fits[0]['device']} ({fits[0]['precision']}); {chosen} was tested",
        in_a_line(config["optimizer"], only=("lr", "momentum", "weight_decay", "alpha")),
    ]


def _fingerprints(runs: Sequence[StoredRun]) -> str:
    by_fold = {run.fold: run.fingerprint for run in runs}
    if len(by_fold) == 1:
        return runs[0].fingerprint
    if len(by_fold) > FEW:
        return "one for each fold, in the table of every run"
    return ", ".join(f"fold {fold}: {fingerprint}" for fold, fingerprint in by_fold.items())


def _s(items: Sequence[object]) -> str:
    return "s" if len(items) != 1 else ""
