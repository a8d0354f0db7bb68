"""Who may import whom, as the design says."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ser

SLOW = {"torch", "lightning", "torchmetrics", "librosa", "numba", "wandb", "jsonargparse", "optuna"}
RUN = Path(__file__).parent / "fixtures/run_of_format_1"
PACKAGE = Path(ser.__file__).parent
FILES = {".".join(("ser", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in PACKAGE.rglob("*.py")}

PACKAGES = {module.split(".")[1] for module in FILES if module.count(".") > 1} - {"__init__"}
ABOVE = {  # package -> packages that it must not reach, by whatever way; nothing but the command line reaches that
    "models": PACKAGES - {"models"},
    "settings": PACKAGES - {"settings"},
    "terminal": PACKAGES - {"terminal"},
    "protocols": PACKAGES - {"protocols", "settings"},
    "features": PACKAGES - {"features", "settings"},
    "data": PACKAGES - {"data", "features", "protocols", "settings"},
    "corpora": PACKAGES - {"corpora", "data", "features", "protocols", "settings"},
    "training": {"cli", "corpora", "models", "evaluation", "report", "sweep"},
    "survey": {"cli", "models", "training", "runs", "evaluation", "report", "sweep"},
    "runs": {"cli", "corpora", "models", "data", "evaluation", "report", "sweep"},
    "evaluation": {"cli", "corpora", "models", "data", "features", "report", "sweep"},
    "report": {"cli", "corpora", "models", "data", "features", "sweep"},
    "sweep": {"cli", "corpora", "models", "data", "features", "report"},
}


def imported(source, module, *, everywhere=True):
    """Return the modules that a module imports; with ``everywhere`` false, those that it imports when it is."""
    found = set()
    tree = ast.parse(source)
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
    return found


def within(name, package):
    return name == package or name.startswith(f"{package}.")


def test_imports_are_found_however_they_are_written():
    source = "import a.b\nfrom ser.data import x\nfrom . import y\nfrom ..task import z\ndef f():\n    import late"
    assert imported(source, "ser.models.net") == {"a.b", "ser.data.x", "ser.models.y", "ser.task.z", "late"}
    assert imported(source, "ser.models.net", everywhere=False) == imported(source, "ser.models.net") - {"late"}


def reached(module):
    """Return the modules of ser that a module imports when it is imported, directly or by others; and by which way."""
    ways, waiting = {}, [(module, [module])]
    while waiting:
        name, way = waiting.pop()
        for found in imported(FILES[name].read_text(), name, everywhere=False) if name in FILES else ():
            inner = next((other for other in (found, found.rpartition(".")[0]) if other in FILES), None)
            if inner is not None and inner not in ways:
                ways[inner] = [*way, inner]
                waiting.append((inner, ways[inner]))
    return ways


@pytest.mark.parametrize("package", ABOVE)
def test_packages_do_not_reach_what_lies_above_them(package):
    for module in (name for name in FILES if within(name, f"ser.{package}")):
        for inner, way in reached(module).items():
            assert inner.split(".")[1] not in ABOVE[package], " imports ".join(way)


def test_no_loose_module_reaches_a_package_but_settings():
    for module in (name for name in FILES if name.count(".") == 1 and name not in ("ser.__init__", "ser.__main__")):
        packages = {inner.split(".")[1] for inner in reached(module)} & PACKAGES
        assert packages <= {"settings"}, (module, packages)


@pytest.mark.parametrize("banned", ["torch", "lightning"])
def test_what_reads_runs_knows_no_torch_and_models_no_lightning(banned):
    without = {"torch": ("settings", "terminal"), "lightning": ("models", "features")}[banned]
    for package in (*without, "protocols", "evaluation", "report"):
        for module in (name for name in FILES if within(name, f"ser.{package}")):
            for inner in {module, *reached(module)}:
                wrong = [n for n in imported(FILES[inner].read_text(), inner, everywhere=False) if within(n, banned)]
                assert not wrong, f"{module} reaches {inner}, which imports {wrong}"


def run_apart(arguments, folder=None):
    """Run ser in a process of its own, and return what it prints and the modules that it has loaded."""
    script = (
        "import sys, ser.cli\ntry: ser.cli.main(sys.argv[1:])\nexcept SystemExit: pass\nprint(); print(*sys.modules)"
    )
    command = [sys.executable, "-c", script, *arguments]
    here = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=here)
    printed, _, modules = answer.stdout.rstrip().rpartition("\n")
    assert "ser.cli" in modules.split()
    return printed, set(modules.split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fitt"]])
def test_help_version_and_a_wrong_verb_load_nothing_heavy(arguments):
    _, loaded = run_apart(arguments)
    assert not loaded & {*SLOW, "numpy", "rich", "matplotlib"}


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("compare a b", "b and a do not differ significantly in UAR across speakers."),
        ("report a b --output page.html", "Report on a, b: page.html"),
        ("cache --cache_dir .", "No feature caches"),
    ],
)
def test_verbs_that_read_what_was_kept_load_no_torch(command, shown, tmp_path):
    for system in "ab":
        shutil.copytree(RUN, tmp_path / system / "fold0-seed1")
    printed, loaded = run_apart(command.split(), tmp_path)
    assert shown in printed
    assert not loaded & SLOW


@pytest.mark.parametrize(
    ("verb", "own", "others"),
    [
        ("data", "--pictures", "ser data --data.help NAME"),
        ("crossval", "--seeds", "ser fit --help"),
        ("sweep", "--storage", "ser fit --help"),
    ],
)
def test_verbs_that_take_options_of_a_fit_list_their_own_at_once(verb, own, others):
    printed, loaded = run_apart([verb, "--config", "mine.yaml", "--help"])
    assert own in printed
    assert others in " ".join(printed.split())
    assert not loaded & {*SLOW, "numpy", "rich"}
