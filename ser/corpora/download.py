"""Corpora that may be fetched: downloaded, held against their checksum, and unpacked."""

import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch

from ser.errors import UserError
from ser.storage import lock_of

TIMEOUT_S = 60  # without a single byte


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

    The folder appears whole or not at all; of two processes one downloads and the other waits.

    Args:
        archive: What to fetch.
        folder: Where its content belongs.
        asked: What is asked for of whom, for a corpus that has no archive.

    Raises:
        UserError: There is no archive; or it cannot be fetched, is damaged, or the folder cannot be written.
    """
    if archive is None:
        raise UserError(f"ser cannot fetch this corpus. Ask for {asked}, and give its folder with --data.root DIR.")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    pooch.get_logger().setLevel("WARNING")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(folder):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                return
            print(f"Downloading {archive.url} to {folder}", flush=True)
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
            try:
                pooch.retrieve(
                    archive.url,
                    archive.checksum,
                    fname="corpus.zip",
                    path=unfinished,
                    processor=pooch.Unzip(extract_dir="corpus"),  # Python's zipfile lets no path leave the folder
                    downloader=pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_S),
                )
                if folder.exists():  # and is empty; renaming onto it works on some systems only
                    folder.rmdir()
                (unfinished / "corpus").rename(folder)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    # Of the network and the disk; a checksum that differs; an archive that cannot be unpacked.
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError) as error:
        raise UserError(
            f"{archive.url} could not be fetched to {folder} ({type(error).__name__}: {error}). Repeat the command; or "
            "fetch it yourself, unpack it, and give its folder with --data.root."
        ) from error
