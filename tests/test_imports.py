"""Who may import whom, as the design says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ser

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
def test_models_and_protocols_know_no_lightning_and_settings_no_torch(banned):
    for package in {"torch": ("settings", "terminal", "protocols"), "lightning": ("models", "features", "protocols")}[
        banned
    ]:
        for module in (name for name in FILES if within(name, f"ser.{package}")):
            for inner in {module, *reached(module)}:
                wrong = [n for n in imported(FILES[inner].read_text(), inner, everywhere=False) if within(n, banned)]
                assert not wrong, f"{module} reaches {inner}, which imports {wrong}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["fitt"]])
def test_help_version_and_a_wrong_verb_load_nothing_heavy(arguments):
    script = f"import sys, ser.cli; ser.cli.main({arguments}); print(*sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    loaded = set(answer.stdout.splitlines()[-1].split())
    assert "ser.cli" in loaded
    assert not loaded & {"torch", "lightning", "numpy", "librosa", "wandb", "jsonargparse", "rich", "matplotlib"}
