"""Corpora that may be fetched: downloaded with resumption, checked, and unpacked so that no path leaves the folder."""

import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ser.errors import UserError

TIMEOUT_S = 60  # without a single byte
BLOCK_BYTES = 2**16  # what an interruption loses at most


@dataclass(frozen=True)
class Archive:
    """A zip file that holds a corpus.

    Attributes:
        url: Where it is.
        checksum: As pooch writes it, algorithm and digest ("md5:0123..."); None where its authors publish none.
    """

    url: str
    checksum: str | None = None


def fetch(archive: Archive | None, folder: Path, asked: str) -> None:
    """Download and unpack an archive, unless the folder holds something already.

    The folder appears whole or not at all. An interrupted download goes on where it stopped; of two processes one
    downloads and the other waits.

    Args:
        archive: What to fetch.
        folder: Where its content belongs.
        asked: What is asked for of whom, for a corpus that has no archive.

    Raises:
        UserError: There is no archive; or it cannot be fetched, is damaged, or the folder cannot be written.
    """
    if archive is None:
        raise UserError(f"ser cannot fetch this corpus. Ask for {asked}, and give its folder with --data.root DIR.")
    by_hand = f"Or fetch {archive.url} yourself, unpack it, and give its folder with --data.root."
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                return
            _fetch(archive, folder)
    except requests.RequestException as error:
        raise UserError(
            f"{archive.url} could not be downloaded ({type(error).__name__}: {error}). Repeat the command; it goes on "
            f"where it stopped. {by_hand}"
        ) from error
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}. Mend that, or give another --data.root."
        ) from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file.

    Raises:
        UserError: It is damaged, or names a path outside of the folder; nothing is written then.
    """
    root = folder.resolve()
    try:
        with zipfile.ZipFile(archive) as content:
            for name in content.namelist():
                if not (root / name.replace("\\", "/")).resolve().is_relative_to(root):
                    raise UserError(f"{archive} names {name!r}, a path outside of its folder; nothing was unpacked.")
            damaged = content.testzip()
            if damaged is not None:
                raise UserError(f"{archive} is damaged: {damaged} differs from its checksum. Fetch it again.")
            content.extractall(root)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise UserError(f"{archive} is not a zip file that can be unpacked ({error}). Fetch it again.") from error


def _fetch(archive: Archive, folder: Path) -> None:
    name = f".{folder.name}.zip"
    print(f"Downloading {archive.url} to {folder}", flush=True)
    pooch.get_logger().setLevel("WARNING")
    try:
        downloaded = pooch.retrieve(
            archive.url, archive.checksum, fname=name, path=folder.parent, downloader=_Resuming(folder.parent / name)
        )
    except ValueError as error:  # what pooch raises when a checksum differs
        raise UserError(
            f"What {archive.url} sent is not what was published ({archive.checksum}). It was removed; repeat the "
            "command, and if that does not help, fetch the corpus from its home page."
        ) from error
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of an extraction that was killed
    try:
        unpack(Path(downloaded), unfinished)
        if folder.exists():  # and is empty; renaming onto it works on some systems only
            folder.rmdir()
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # gone already if all went well
        Path(downloaded).unlink(missing_ok=True)


class _Resuming:
    """A downloader for pooch that keeps what it got, and asks for the rest the next time.

    Args:
        target: Where the file belongs; a part of it is kept beside it.
    """

    def __init__(self, target: Path) -> None:
        self.part = target.with_name(f"{target.name}.part")

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download to a file, as pooch asks."""
        had = self.part.stat().st_size if self.part.exists() else 0
        # Without compression on the way, which would count other bytes than the file has.
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={had}-"} if had else {})}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            if had and response.status_code == requests.codes.requested_range_not_satisfiable:
                self.part.unlink()  # whole already, or of another file; which of them is not worth finding out
                return self(url, output_file, pooch)
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                had = 0  # this server sends all of it
            self._receive(response, had)
        shutil.move(self.part, output_file)
        return None

    def _receive(self, response: requests.Response, had: int) -> None:
        columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        length = response.headers.get("Content-Length")
        bar = Progress(*columns, TimeRemainingColumn(), transient=True, disable=not sys.stdout.isatty())
        with self.part.open("ab") as file, bar:
            file.truncate(had)
            task = bar.add_task("", total=had + int(length) if length else None, completed=had)
            for block in response.iter_content(BLOCK_BYTES):
                file.write(block)
                bar.advance(task, len(block))
