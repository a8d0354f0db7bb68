import hashlib
import io
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ser.corpora import CASIA, IEMOCAP, RAVDESS, SAVEE, EmoDB
from ser.corpora.download import Archive, fetch
from ser.errors import UserError

CONTENT = {"wav/a.wav": b"first " * 50_000, "wav/b.wav": b"second", "readme.txt": b"hello"}


def zipped(content: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


class Server:
    """Serves one file, and drops the connection after some bytes on request."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.drop_after: int | None = None
        self.requests = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests += 1
                self.send_response(200 if server.data else 404)
                self.send_header("Content-Length", str(len(server.data)))
                self.end_headers()
                self.wfile.write(server.data[: server.drop_after])

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/corpus.zip"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def archive(self) -> Archive:
        return Archive(self.url, f"md5:{hashlib.md5(self.data).hexdigest()}")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server(zipped(CONTENT))
    yield server
    server.http.shutdown()
    server.http.server_close()


def files(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def beside(folder) -> set[str]:
    return {path.name for path in folder.parent.iterdir()} - {folder.name, f".{folder.name}.lock"}


@pytest.mark.parametrize("checked", [True, False])
def test_an_archive_is_fetched_once_and_nothing_else_is_left(server, tmp_path, checked, capsys):
    folder = tmp_path / "data" / "corpus"
    archive = server.archive if checked else Archive(server.url)
    for _ in range(2):
        fetch(archive, folder, asked="")
    assert files(folder) == CONTENT
    assert beside(folder) == set()
    assert server.requests == 1
    assert capsys.readouterr().out == f"Downloading {server.url} to {folder}\n"


def test_an_empty_folder_is_filled_and_another_left_alone(server, tmp_path):
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir()
    full.mkdir()
    (full / "mine.wav").write_bytes(b"mine")
    fetch(server.archive, empty, asked="")
    fetch(server.archive, full, asked="")
    assert files(empty) == CONTENT
    assert files(full) == {"mine.wav": b"mine"}


def test_another_process_waits_and_downloads_nothing(server, tmp_path):
    folder = tmp_path / "corpus"
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: fetch(server.archive, folder, asked=""), range(2)))
    assert files(folder) == CONTENT
    assert server.requests == 1


def test_an_interrupted_download_leaves_nothing_and_may_be_repeated(server, tmp_path):
    folder = tmp_path / "corpus"
    for archive in (server.archive, Archive(server.url)):
        server.drop_after = 300
        with pytest.raises(UserError, match=r"Could not download .*Repeat the command; or download and unpack it"):
            fetch(archive, folder, asked="")
        assert not folder.exists()
        assert beside(folder) == set()
    server.drop_after = None
    (tmp_path / ".corpus.unfinished" / "corpus").mkdir(parents=True)  # of a process that was killed
    (tmp_path / ".corpus.unfinished" / "corpus" / "half.wav").write_bytes(b"half")
    fetch(server.archive, folder, asked="")
    assert files(folder) == CONTENT
    assert beside(folder) == set()


DAMAGED = zipped(CONTENT).replace(b"second", b"SECOND", 1)


@pytest.mark.parametrize(
    ("data", "checksum", "why"),
    [
        (
            zipped(CONTENT),
            "md5:" + "0" * 32,
            r"ValueError: .*does not match the known hash: expected md5:0{32} but got",
        ),
        (b"<html>moved</html>", None, "BadZipFile: File is not a zip file"),
        (DAMAGED, None, "BadZipFile: Bad CRC-32 for file 'wav/b.wav'"),
        (b"", None, "HTTPError: 404"),
    ],
)
def test_a_wrong_archive_is_rejected(server, tmp_path, data, checksum, why):
    folder = tmp_path / "corpus"
    server.data = data
    with pytest.raises(UserError, match=rf"(?s)Could not download .*corpus.zip to .*corpus \({why}"):
        fetch(Archive(server.url, checksum), folder, asked="")
    assert not folder.exists()
    assert beside(folder) == set()


def test_a_server_that_is_not_there_and_a_folder_that_cannot_be_made(server, tmp_path):
    with pytest.raises(UserError, match=r"Could not download .*unpack it yourself, and give its folder"):
        fetch(Archive("http://127.0.0.1:9/x.zip"), tmp_path / "corpus", asked="")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"Could not download .*File exists"):
        fetch(server.archive, tmp_path / "file" / "corpus", asked="")


@pytest.mark.parametrize(
    "name", ["../evil.wav", "wav/../../evil.wav", "/evil.wav", "..\\evil.wav", "wav/../../corpus-evil/x.wav"]
)
def test_no_path_of_an_archive_leaves_the_folder(server, tmp_path, name):
    folder = tmp_path / "inner" / "corpus"
    server.data = zipped({"wav/good.wav": b"good", name: b"evil"})
    fetch(server.archive, folder, asked="")
    assert sorted(files(folder).values()) == [b"evil", b"good"]
    assert {path.name for path in tmp_path.iterdir()} == {"inner"}
    assert beside(folder) == set()


def test_a_link_in_an_archive_becomes_a_plain_file(server, tmp_path):
    link = zipfile.ZipInfo("wav")
    link.external_attr = 0o120777 << 16
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(link, str(tmp_path / "elsewhere"))
    server.data = content.getvalue()
    fetch(server.archive, tmp_path / "corpus", asked="")
    assert (tmp_path / "corpus" / "wav").is_file()
    assert not (tmp_path / "corpus" / "wav").is_symlink()


def test_a_corpus_is_fetched_to_its_root_or_to_the_cache_folder(server, tmp_path, monkeypatch, make_corpus):
    wav = next(make_corpus().glob("*.wav")).read_bytes()
    server.data = zipped({"wav/03a01Fa.wav": wav, "wav/08a01Wa.wav": wav})
    monkeypatch.setattr(EmoDB, "archive", server.archive)
    here = EmoDB(tmp_path / "mine", download=True, cache_dir=tmp_path / "cache")
    assert here.labels == ["anger", "happiness"]
    there = EmoDB(download=True, cache_dir=tmp_path / "cache")
    assert there.locate() == tmp_path / "cache" / "corpora" / "emodb"
    assert len(there.table) == 2


@pytest.mark.parametrize("corpus", [SAVEE, CASIA, IEMOCAP])
def test_others_say_where_to_ask(corpus, tmp_path):
    with pytest.raises(UserError, match=r"ser cannot download this corpus\. Get it from its owners") as error:
        corpus(download=True, cache_dir=tmp_path).labels  # noqa: B018
    assert corpus.homepage in str(error.value)
    assert corpus.licence in str(error.value)


@pytest.mark.parametrize("corpus", [EmoDB, RAVDESS])
def test_without_a_root_the_download_is_offered(corpus, tmp_path):
    with pytest.raises(UserError, match=r"give --data\.root DIR, or --data.download true"):
        corpus(cache_dir=tmp_path).labels  # noqa: B018
