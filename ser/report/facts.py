"""What was run: corpus, protocol, features, training, and warnings about the scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from ser.evaluation.summary import Summary, in_a_line
from ser.report.parts import sentence
from ser.runs.folder import SYNTHETIC, StoredRun

FEW = 6  # folds that are listed
Fact = tuple[str, list[str]]  # a term, and lines of text


def facts(summary: Summary) -> list[Fact]:
    """Return what was run, from the run folders' ``protocol.json``, ``config.yaml`` and ``metrics.json``."""
    runs = summary.runs
    protocol = runs[0].protocol
    found = [
        ("System", [_system(runs[0])]),
        ("Corpus", _corpus(protocol)),
        ("Emotions", _emotions(protocol)),
        ("Protocol", [f"{in_a_line(protocol['protocol'])}, {_folds(summary)}.", *splits(runs)]),
        ("Features", _features(protocol["front_end"])),
        ("Training", _training(runs)),
        ("Fingerprint", [_fingerprints(runs)]),
        ("Run folders", list(dict.fromkeys(str(run.path.parent) for run in runs))),
    ]
    return [(term, lines) for term, lines in found if lines]


def splits(runs: Sequence[StoredRun]) -> list[str]:
    """Return the sizes of the splits, and whether they are speaker-disjoint."""
    train, val = (_split(runs, split) for split in ("train", "val"))
    tests = [run.test for run in runs]
    test = _utterances([len(test.files) for test in tests], [len(set(test.speakers)) for test in tests])
    protocol = runs[0].protocol
    if not runs[0].trained_here:
        return [f"Each run tested a checkpoint on {test}; nothing was trained here."]
    if protocol["test_is_validation"]:
        sizes = f"Each run trained on {train}, and selected its checkpoint and tested on the same {test}."
    else:
        sizes = f"Each run trained on {train}, selected its checkpoint on {val} and tested on {test}."
    if protocol["speaker_disjoint"]:
        return [sizes, "Splits are speaker-disjoint: all test speakers are unseen."]
    return [sizes, "Splits share speakers: test speakers were seen in training."]


def warnings(summary: Summary) -> list[str]:
    """Return what to know before reading the scores."""
    protocol = summary.runs[0].protocol
    found = []
    if summary.synthetic:
        found.append(SYNTHETIC)
    if not protocol["speaker_disjoint"] and summary.runs[0].trained_here:
        found.append(
            "The protocol shares speakers between training and test: these scores say nothing about unseen speakers, "
            "and are usually far higher than theirs."
        )
    if protocol["test_is_validation"] and summary.runs[0].trained_here:
        found.append(
            "The checkpoint was selected on the test utterances, as in the paper: the scores are optimistic, those of "
            "the best epoch."
        )
    published = {emotion: pair for emotion, pair in protocol["found_and_published"].items() if None not in pair}
    differs = [f"{name} {found} of {of}" for name, (found, of) in published.items() if found != of]
    if differs:
        found.append(f"This copy of {summary.corpus} differs from the published: {', '.join(differs)} utterances.")
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
        tested = f"{len(folds)} folds, testing {folds[0].tests} to {folds[-1].tests}"
    else:
        tested = f"fold{_s(folds)} " + ", ".join(f"{fold.number} (tests {fold.tests})" for fold in folds)
    return f"{tested}; seed{_s(seeds)} {', '.join(map(str, seeds))}" if seeds else tested


def _split(runs: Sequence[StoredRun], split: str) -> str:
    parts = [run.protocol[split] for run in runs]
    return _utterances([part["utterances"] for part in parts], [len(part["speakers"]) for part in parts])


def _utterances(utterances: Sequence[int], speakers: Sequence[int]) -> str:
    return f"{_range(utterances)} utterances of {_range(speakers)} speaker{'s' if max(speakers) > 1 else ''}"


def _range(counts: Sequence[int]) -> str:
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"


def _features(front_end: Mapping[str, Any]) -> list[str]:
    before = ", ".join(f"{name}={value}" for name, value in front_end["preprocess"].items() if value is not None)
    return [in_a_line(front_end["features"]), f"Preprocessing: {before}"]


def _training(runs: Sequence[StoredRun]) -> list[str]:
    fits = [run.metrics["fit"] for run in runs if "fit" in run.metrics]
    if not fits or not runs[0].config:
        return []
    epochs = _range([fit["epochs"] for fit in fits])
    seconds = sum(fit["seconds_per_epoch"] for fit in fits) / len(fits)
    config = runs[0].config
    best = config.get("test_checkpoint") == "best"
    tested = f"the epoch with the best {config['checkpoint']['monitor']}" if best else "the last epoch"
    return [
        f"{epochs} epochs of {seconds:.1f} s on {fits[0]['device']} ({fits[0]['precision']}); tested: {tested}",
        in_a_line(config["optimizer"], only=("lr", "momentum", "weight_decay", "alpha")),
    ]


def _fingerprints(runs: Sequence[StoredRun]) -> str:
    by_fold = {run.fold: run.fingerprint for run in runs}
    if len(by_fold) == 1:
        return runs[0].fingerprint
    if len(by_fold) > FEW:
        return "one for each fold, see the table of all runs"
    return ", ".join(f"fold {fold}: {fingerprint}" for fold, fingerprint in by_fold.items())


def _s(items: Sequence[object]) -> str:
    return "s" if len(items) != 1 else ""
