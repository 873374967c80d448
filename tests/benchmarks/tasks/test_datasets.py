"""BEIR sets from a small local server in the place of the public host."""

import http.server
import io
import sys
import threading
import zipfile

import pytest

from benchmarks.tasks import datasets
from benchmarks.tasks.datasets import fetch_beir
from retrieval.errors import DownloadError, MissingDependencyError, StorageError, UnknownNameError

pytest.importorskip("beir", reason="the bench extra is not installed")

FILES = {
    "scifact/corpus.jsonl": b'{"_id": "a", "text": "x"}\n' * 200,
    "scifact/queries.jsonl": b'{"_id": "q", "text": "x"}\n',
    "scifact/qrels/test.tsv": b"query-id\tcorpus-id\tscore\nq\ta\t1\n",
}


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Host:
    """Serves one body for every path; ``promised`` is the length that it announces."""

    def __init__(self, body, status=200, promised=None, head_length=None):
        self.requests = []
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.answer(head_length)

            def do_GET(self):
                self.answer(promised)
                self.wfile.write(body)

            def answer(self, length):
                host.requests.append((self.command, self.path))
                self.send_response(status)
                self.send_header("Content-Length", str(length or len(body)))
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/sets/{{name}}.zip"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "millpond" / "beir"


@pytest.fixture
def serve(monkeypatch, cache):
    """Put a host in the place of the public one."""
    hosts = []

    def start(body, **settings):
        host = Host(body, **settings)
        hosts.append(host)
        monkeypatch.setattr(datasets, "BEIR_URL", host.url)
        return host

    yield start
    for host in hosts:
        host.close()


def left(cache):
    return sorted(path.name for path in cache.iterdir())


def test_a_set_is_fetched_once_and_kept(serve, cache, capsys):
    host, lines = serve(zipped(FILES)), []
    folder = fetch_beir("scifact", lines.append)
    assert folder == cache / "scifact"
    assert {
        path.relative_to(cache).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    } == FILES
    assert lines == [f"Fetching BEIR's scifact (0.0 MB) from 127.0.0.1:{host.server.server_port}"]
    assert host.requests == [("HEAD", "/sets/scifact.zip"), ("GET", "/sets/scifact.zip")]
    assert fetch_beir("scifact", lines.append) == folder
    assert len(host.requests) == 2
    assert left(cache) == ["scifact"]
    assert capsys.readouterr() == ("", "")


BODY = zipped(FILES)
DAMAGED = BODY.replace(b'"text": "x"}', b'"text": "y"}', 1)


@pytest.mark.parametrize(
    ("body", "settings", "message"),
    [
        (b"<html>moved</html>", {}, "is no whole zip file"),
        (BODY[:300], {}, "is no whole zip file"),
        (BODY[:300], {"head_length": len(BODY)}, f"300 bytes arrived of {len(BODY):,}"),
        (BODY[:300], {"promised": len(BODY)}, "broke off|is no whole zip file"),
        (DAMAGED, {}, "scifact/corpus.jsonl is damaged"),
        (zipped({"other/corpus.jsonl": b""}), {}, "holds no scifact/corpus.jsonl"),
        (b"not here", {"status": 404}, "answers 404 Not Found"),
        (b"later", {"status": 503}, "answers 503 Service Unavailable"),
    ],
)
def test_what_is_not_whole_is_not_kept(serve, cache, body, settings, message):
    serve(body, **settings)
    with pytest.raises(DownloadError, match=message) as caught:
        fetch_beir("scifact", lambda line: None)
    assert "or name a local BEIR folder instead" in str(caught.value)
    assert left(cache) == []
    serve(BODY)
    assert fetch_beir("scifact", lambda line: None).is_dir()


def test_a_host_that_cannot_be_reached_is_said_so(serve, cache):
    serve(BODY).close()
    with pytest.raises(DownloadError, match=r"cannot be reached \(.*refused.*\)\. Check the net"):
        fetch_beir("scifact", lambda line: None)
    assert left(cache) == []


def test_a_name_that_beir_has_not_is_refused_without_asking(serve):
    host = serve(BODY)
    with pytest.raises(UnknownNameError, match="Unknown BEIR set 'scifct'. Did you mean 'scifact'"):
        fetch_beir("scifct", lambda line: None)
    assert host.requests == []


def test_a_cache_that_cannot_be_written_is_a_storage_error(serve, cache):
    serve(BODY)
    cache.parent.parent.joinpath("millpond").write_text("a file in its place")
    with pytest.raises(StorageError, match="cannot be written .* set XDG_CACHE_HOME"):
        fetch_beir("scifact", lambda line: None)


def test_without_requests_the_extra_is_named(monkeypatch, cache):
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(MissingDependencyError, match=r'needs requests.*"millpond\[bench\]"'):
        fetch_beir("scifact", lambda line: None)
    assert left(cache) == []
