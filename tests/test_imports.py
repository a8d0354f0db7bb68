"""Who may import whom, as the design says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ser

PACKAGE = Path(ser.__file__).parent
FILES = {".".join(("ser", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in PACKAGE.rglob("*.py")}

ALLOWED = {  # package -> what of ser its modules may import, besides themselves
    "ser.models": {"ser.errors"},
    "ser.data": {"ser.settings.config_yaml", "ser.errors", "ser.settings.names", "ser.settings.recipe", "ser.storage"},
    "ser.corpora": {"ser.errors", "ser.data", "ser.settings.names", "ser.settings.recipe"},
    "ser.settings.config_yaml": set(),
    "ser.settings.names": set(),
    "ser.training.metrics": set(),
    "ser.settings.recipe": set(),
    "ser.storage": set(),
    "ser.errors": set(),
    "ser.cli.memory": set(),
    "ser.terminal.streams": set(),
    "ser.terminal.tables": set(),
    "ser.cli": {"ser.errors", "ser.cli.memory", "ser.terminal.streams"},  # the rest when a verb is called
}
FORBIDDEN = {
    "ser.models": {"lightning", "pytorch_lightning"},
    "ser.runs.folder": {"ser.data", "ser.corpora", "ser.models", "ser.training.task"},
    "ser.evaluation": {"ser.data", "ser.corpora", "ser.models", "ser.training.task"},
    "ser.training.task": {"ser.data", "ser.corpora", "ser.models"},
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
    assert imported(source, "ser.models.net") == {"a.b", "ser.data.x", "ser.models.y", "ser.training.task.z", "late"}
    assert imported(source, "ser.models.net", everywhere=False) == imported(source, "ser.models.net") - {"late"}


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_only_what_the_design_allows(package):
    members = {module: path for module, path in FILES.items() if within(module, package)}
    assert members
    for module, path in members.items():
        names = imported(path.read_text(), module, everywhere=package != "ser.cli")
        ours = {name for name in names if within(name, "ser")} - {"ser.__version__"}
        wrong = {name for name in ours if not any(within(name, p) for p in {package, *ALLOWED[package]})}
        assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_do_not_import_what_the_design_forbids(package):
    for module, path in FILES.items():
        if within(module, package):
            names = imported(path.read_text(), module)
            wrong = {name for name in names if any(within(name, p) for p in FORBIDDEN[package])}
            assert not wrong, f"{module} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fitt"]])
def test_help_version_and_a_wrong_verb_load_nothing_heavy(arguments):
    script = f"import sys, ser.cli; ser.cli.main({arguments}); print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    loaded = set(answer.stdout.splitlines()[-1].split())
    assert "ser.cli" in loaded
    assert not loaded & {"torch", "lightning", "numpy", "librosa", "wandb", "jsonargparse", "rich", "matplotlib"}
