"""The Dockerfile's steps, run without a container engine, and what its image does.

This machine stands in for the base image: its root file system with the tests' environment, without ser, below an
overlay that nobody else sees and that is gone when the tests are, killed or not. So neither the base image nor the
dependencies are downloaded, and COPY is this file's; all else runs as the Dockerfile says.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from docker.utils import exclude_paths

from ser import __version__
from ser.runs.folder import read_run

dockerfile = pytest.importorskip("dockerfile", reason="BuildKit's parser has no wheel for this machine")

REPOSITORY = Path(__file__).parents[1]
ANYBODY = "4242:4242"  # as in docker run --user: without a name
FIT = ["--trainer.max_epochs", "1", "--data.batch_size", "2", "--trainer.accelerator", "cpu"]
FIT += [f"--trainer.limit_{stage}_batches=1" for stage in ("train", "val", "test")]

# The namespace lives as long as its standard input: as long as this process.
NAMESPACE = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/written" "$1/work" "$1/image"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/written,workdir=$1/work" "$1/image"
for folder in proc sys dev; do mount --rbind /$folder "$1/image/$folder"; done
mount -t tmpfs -o size=64m tmpfs "$1/image/dev/shm"  # as small as Docker's
chmod 1777 "$1/image/tmp"  # it holds this Python, where the checkout lies there
echo mounted
exec cat
"""


class Image:
    """What the Dockerfile makes, on an overlay."""

    def __init__(self, namespace: subprocess.Popen, folder: Path) -> None:
        self.namespace = namespace
        seen = Path(f"/proc/{namespace.pid}/root")
        self.folder = folder / "image"
        self.root = seen / self.folder.relative_to("/")
        self.upper = seen / (folder / "written").relative_to("/")
        self.environment = {"PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.workdir = Path("/")
        self.user = "0"
        self.volumes: list[str] = []
        self.entrypoint: list[str] = []
        self.cmd: list[str] = []

    def execute(self, *command: str, user: str = "0", **environment: str) -> str:
        """Run a command in the working folder, with no other variables than the image's and these."""
        variables = [f"{name}={value}" for name, value in {**self.environment, **environment}.items()]
        enter = ["nsenter", f"--mount=/proc/{self.namespace.pid}/ns/mnt", "chroot", f"--userspec={user}", "--groups="]
        enter += [str(self.folder), "env", "--ignore-environment", f"--chdir={self.workdir}", *variables]
        done = subprocess.run([*enter, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def build(self) -> None:
        for step in dockerfile.parse_file(str(REPOSITORY / "Dockerfile")):
            match step.cmd, step.value:
                case "FROM", ("python:3.11-slim",):
                    self._become_the_base_image()
                case "WORKDIR", (folder,):
                    self.workdir = Path(folder)
                    self.inside(folder).mkdir(parents=True)
                case "COPY", (*sources, destination):
                    self._copy(sources, destination, *step.flags)
                case "RUN", (command,):
                    assert not step.flags
                    # pip finds the dependencies installed; 0 is how its variable switches build isolation off.
                    offline = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": "/dev/null"}
                    self.execute("sh", "-c", command, HOME="/root", **offline)
                case "ENV", names_and_values:
                    self.environment |= dict(zip(names_and_values[::2], names_and_values[1::2], strict=True))
                case "USER", (user,):
                    self.user = user
                case "VOLUME", volumes:
                    self.volumes += volumes
                case "ENTRYPOINT", command:
                    self.entrypoint = list(command)
                case "CMD", command:
                    self.cmd = list(command)
                case _:
                    raise NotImplementedError(step.original)
        for volume in self.volumes:
            self.mount_new(volume)

    def mount_new(self, volume: str) -> None:
        """Mount an empty volume, which takes mode and content over from the image's folder, as an engine's does."""
        taken_over = self.upper / Path(volume).relative_to("/")
        mode = taken_over.stat().st_mode & 0o7777
        self.execute("mount", "-t", "tmpfs", "-o", f"mode={mode:o}", "tmpfs", volume)
        shutil.copytree(taken_over, self.inside(volume), dirs_exist_ok=True)

    def inside(self, path: str | Path) -> Path:
        """Return where this process sees a path of the image."""
        return self.root / Path(path).relative_to("/")

    def written(self) -> dict[Path, int]:
        """Return what the overlay holds, which is all that was written outside of volumes and /tmp, with its times."""
        kept = (path for path in self.upper.rglob("*") if not path.is_relative_to(self.upper / "tmp"))
        return {path: path.lstat().st_ctime_ns for path in kept}

    def _become_the_base_image(self) -> None:
        for folder in (*Path(sys.prefix).parents, *Path(sys.base_prefix).parents):
            self.execute("chmod", "a+x", str(folder))  # Python lies in somebody's home, on some machines
        self.execute("sed", "-i", "/:1000:/d", "/etc/passwd", "/etc/group")
        self.execute("pip", "uninstall", "--yes", "ser")

    def _copy(self, sources: list[str], destination: str, chmod: str | None = None) -> None:
        patterns = (REPOSITORY / ".dockerignore").read_text().splitlines()
        context = exclude_paths(str(REPOSITORY), [line for line in patterns if not line.startswith("#")])
        for path in map(Path, context - {"Dockerfile", ".dockerignore"}):  # which that function always adds
            for source in map(Path, sources):
                if path.is_relative_to(source) and (REPOSITORY / path).is_file():
                    name = path.relative_to(source) if (REPOSITORY / source).is_dir() else path.name
                    target = self.inside(self.workdir / destination / name)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(REPOSITORY / path, target)
                    target.chmod(int(chmod.removeprefix("--chmod="), 8) if chmod else 0o600)  # as umask 077 leaves it


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    if os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("the Dockerfile's steps need root, unshare and nsenter")
    if os.stat(sys.prefix).st_dev != os.stat("/").st_dev or os.stat(sys.base_prefix).st_dev != os.stat("/").st_dev:
        pytest.skip("this Python is not on the root file system, so an overlay of that does not hold it")
    folder = tmp_path_factory.mktemp("container")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", NAMESPACE, "sh", str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as namespace:
        if namespace.stdout.readline() != "mounted\n":
            pytest.skip(f"this machine lets nobody mount an overlay: {namespace.stderr.read()}")
        image = Image(namespace, folder)
        image.build()
        yield image


def test_the_image_installs_as_the_readme_does():
    run = next(step for step in dockerfile.parse_file(str(REPOSITORY / "Dockerfile")) if step.cmd == "RUN")
    install = run.value[0].split("&&")[0].strip()
    assert install.replace(" --no-cache-dir", "") in (REPOSITORY / "README.md").read_text()


def test_the_image_holds_the_code_the_configs_and_the_sweeps_and_nothing_else(image):
    def files(root, *names):
        paths = (path.relative_to(root) for name in names for path in (root / name).rglob("*") if path.is_file())
        return {path for path in paths if not {"__pycache__", "ser.egg-info"} & set(path.parts)}

    install = {Path("pyproject.toml"), Path("constraints.txt")}
    assert files(image.inside(image.workdir), ".") == install | files(REPOSITORY, "ser", "configs", "sweeps")


def test_ser_is_the_copied_one(image):
    where = image.execute("python", "-P", "-c", "import ser.cli; print(ser.cli.__file__)", user=ANYBODY)
    assert where.strip() == f"{image.workdir}/ser/cli/__init__.py"


def test_ser_says_its_version_to_anybody(image):
    assert image.execute(*image.entrypoint, "--version", user=ANYBODY) == f"{__version__}\n"


def test_the_user_is_not_root_by_number(image):
    assert int(image.user) > 0  # Kubernetes' runAsNonRoot refuses names


@pytest.mark.slow
def test_a_fit_writes_nothing_outside_of_its_volumes_and_anybody_predicts_with_it(image):
    before = image.written()
    printed = image.execute(*image.entrypoint, *image.cmd, *FIT, user=image.user, OMP_NUM_THREADS="1")
    run = Path("runs/cornn-synthetic/fold0-seed1")
    assert f"Run folder: {run}\n" in printed
    fit = read_run(image.inside("/") / run)
    assert len(fit.history) == 1
    assert fit.path.stat().st_uid == int(image.user)
    assert list(image.inside("/cache/ser").iterdir())

    recordings = image.inside("/data/recordings")
    recordings.mkdir()
    shutil.copy(next(image.inside("/cache/ser").rglob("*.wav")), recordings)
    image.mount_new("/cache")
    predict = ["predict", "--ckpt_path", f"{run}/checkpoints/best.ckpt", "--data", "AudioFolder"]
    image.execute(*image.entrypoint, *predict, "--data.root", "/data/recordings", user=ANYBODY, OMP_NUM_THREADS="1")
    assert image.written() == before
