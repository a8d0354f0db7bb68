"""Download of corpora: fetched, compared with their checksum, and unpacked."""

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch

from ser.errors import UserError
from ser.storage import fill_once

TIMEOUT_S = 60  # without a single byte
ARCHIVE = "archive.zip"  # its name while it is unpacked


@dataclass(frozen=True)
class Archive:
    """A zip file that holds a corpus.

    Attributes:
        url: Where it is.
        checksum: Algorithm and digest ("md5:0123..."); None where the authors publish none.
    """

    url: str
    checksum: str | None = None


def fetch(archive: Archive | None, folder: Path, asked: str) -> None:
    """Download and unpack an archive, unless the folder holds something already.

    Args:
        archive: The archive.
        folder: Where its content belongs.
        asked: Where to get a corpus without an archive, for the message.

    Raises:
        UserError: There is no archive; or it cannot be downloaded, is damaged, or the folder cannot be written.
    """
    if archive is None:
        raise UserError(f"ser cannot download this corpus. Get it {asked}, and give its folder with --data.root DIR.")
    pooch.get_logger().setLevel("WARNING")

    def download(unfinished: Path) -> None:
        print(f"Downloading {archive.url} to {folder}", flush=True)
        unzip = pooch.Unzip(extract_dir=".")  # Python's zipfile lets no path leave the folder
        downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_S)
        pooch.retrieve(archive.url, archive.checksum, ARCHIVE, unfinished, processor=unzip, downloader=downloader)
        (unfinished / ARCHIVE).unlink()

    try:
        fill_once(folder, lambda folder: folder.exists() and (not folder.is_dir() or any(folder.iterdir())), download)
    # The network or the disk fails; the checksum differs; the archive cannot be unpacked.
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError) as error:
        raise UserError(
            f"Could not download {archive.url} to {folder} ({type(error).__name__}: {error}). Repeat the command; or "
            "download and unpack it yourself, and give its folder with --data.root."
        ) from error
