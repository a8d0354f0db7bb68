import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ser.corpora import CASIA, IEMOCAP, RAVDESS, SAVEE, EmoDB
from ser.data.download import Archive, fetch, unpack
from ser.errors import UserError

CONTENT = {"wav/a.wav": b"first " * 50_000, "wav/b.wav": b"second", "readme.txt": b"hello"}


def zipped(content: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return file.getvalue()


class Server:
    """Serves one file, with or without ranges, and drops the connection after some bytes on request."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.ranges = True
        self.drop_after: int | None = None
        self.asked: list[str | None] = []  # the range of every request
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                server.asked.append(wanted)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
                if start >= len(server.data):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(server.data) - start))
                self.end_headers()
                self.wfile.write(server.data[start:][: server.drop_after])

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
    assert len(server.asked) == 1
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


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    folder = tmp_path / "corpus"
    server.drop_after = 100_000
    with pytest.raises(UserError, match=r"could not be downloaded .*Repeat the command; it goes on where it stopped"):
        fetch(server.archive, folder, asked="")
    assert not folder.exists()
    server.drop_after = None
    fetch(server.archive, folder, asked="")
    assert files(folder) == CONTENT
    assert server.asked == [None, "bytes=65536-"]  # in blocks of 64 KiB
    assert beside(folder) == set()


def test_a_server_without_ranges_sends_all_of_it_again(server, tmp_path):
    folder = tmp_path / "corpus"
    server.drop_after = 100_000
    with pytest.raises(UserError):
        fetch(server.archive, folder, asked="")
    server.drop_after, server.ranges = None, False
    fetch(server.archive, folder, asked="")
    assert files(folder) == CONTENT


def test_a_part_that_does_not_fit_the_file_is_thrown_away(server, tmp_path):
    folder = tmp_path / "corpus"
    (tmp_path / ".corpus.zip.part").write_bytes(bytes(len(server.data) + 5))
    fetch(server.archive, folder, asked="")
    assert files(folder) == CONTENT
    assert len(server.asked) == 2


def test_another_checksum_is_refused(server, tmp_path):
    folder = tmp_path / "corpus"
    with pytest.raises(UserError, match=r"is not what was published \(md5:0{32}\)"):
        fetch(Archive(server.url, "md5:" + "0" * 32), folder, asked="")
    assert not folder.exists()
    assert beside(folder) == set()


def test_an_answer_that_is_no_archive_is_refused(server, tmp_path):
    folder = tmp_path / "corpus"
    server.data = b"<html>moved</html>"
    with pytest.raises(UserError, match="is not a zip file that can be unpacked"):
        fetch(Archive(server.url), folder, asked="")
    assert not folder.exists()
    assert beside(folder) == set()


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"could not be downloaded .*unpack it, and give its folder with --data.root"):
        fetch(Archive("http://127.0.0.1:9/x.zip"), tmp_path / "corpus", asked="")


def test_a_missing_file_on_the_server(server, tmp_path):
    server.data = b""
    with pytest.raises(UserError, match="could not be downloaded"):
        fetch(Archive(server.url), tmp_path / "corpus", asked="")


@pytest.mark.parametrize(
    "name", ["../evil.wav", "wav/../../evil.wav", "/evil.wav", "..\\evil.wav", "wav/../../corpus-evil/x.wav"]
)
def test_no_path_of_an_archive_leaves_the_folder(tmp_path, name):
    archive, folder = tmp_path / "a.zip", tmp_path / "inner" / "corpus"
    folder.parent.mkdir()
    archive.write_bytes(zipped({"wav/good.wav": b"good", name: b"evil"}))
    with pytest.raises(UserError, match="a path outside of its folder; nothing was unpacked"):
        unpack(archive, folder)
    assert {path.name for path in tmp_path.rglob("*")} == {"a.zip", "inner"}


def test_a_link_in_an_archive_becomes_a_plain_file(tmp_path):
    link = zipfile.ZipInfo("wav")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, str(tmp_path / "elsewhere"))
    unpack(tmp_path / "a.zip", tmp_path / "corpus")
    assert (tmp_path / "corpus" / "wav").is_file()
    assert not (tmp_path / "corpus" / "wav").is_symlink()


def test_a_damaged_archive_is_refused(tmp_path):
    data = zipped(CONTENT).replace(b"first first", b"first FIRST", 1)
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"damaged: wav/a\.wav differs from its checksum"):
        unpack(tmp_path / "a.zip", tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


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
    with pytest.raises(UserError, match=r"ser cannot fetch this corpus\. Ask for") as refused:
        corpus(download=True, cache_dir=tmp_path).labels  # noqa: B018
    assert corpus.homepage in str(refused.value)
    assert corpus.licence in str(refused.value)


@pytest.mark.parametrize("corpus", [EmoDB, RAVDESS])
def test_without_a_root_the_download_is_offered(corpus, tmp_path):
    with pytest.raises(UserError, match=r"give --data\.root DIR, or --data.download true"):
        corpus(cache_dir=tmp_path).labels  # noqa: B018
