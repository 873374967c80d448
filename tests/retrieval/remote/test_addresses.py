"""Files at addresses: what is read as on this machine, and what is said of what is not there."""

import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from retrieval import read_corpus
from retrieval.corpus.remote import hide_password
from retrieval.errors import (
    EmptyCorpusError,
    MissingDependencyError,
    SourceNotFoundError,
    StorageError,
    UsageError,
)


class Store(MemoryFileSystem):
    """Stands in for S3: files in memory, under s3://."""

    protocol = "s3"
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("s3://"))


@pytest.fixture
def s3(monkeypatch):
    monkeypatch.setitem(import_module("fsspec.registry")._registry, "s3", Store)
    Store.store.clear()
    store = Store()
    yield store
    Store.clear_instance_cache()


def ids(corpus):
    return [document.doc_id for document in corpus]


class TestStores:
    def test_a_file_of_records(self, s3):
        s3.pipe("/bucket/c.jsonl", b'{"id": "1", "text": "mills"}\n')
        corpus = read_corpus("s3://bucket/c.jsonl")
        assert corpus.name == "s3://bucket/c.jsonl"
        assert ids(corpus) == ids(corpus) == ["1"]  # twice, from one copy

    def test_what_has_changed_is_fetched_again(self, s3):
        for text in ("one", "two"):
            s3.pipe("/bucket/a.txt", text.encode())
            assert [document.text for document in read_corpus("s3://bucket/a.txt")] == [text]

    def test_a_folder_and_a_pattern(self, s3):
        s3.pipe("/bucket/docs/a.md", b"# Mills\ngrind corn")
        s3.pipe("/bucket/docs/deep/b.txt", b"frogs sing")
        s3.pipe("/bucket/docs/c.png", b"x")
        corpus = read_corpus("s3://bucket/docs")
        first, second = corpus
        assert (first.doc_id, first.title) == ("s3://bucket/docs/a.md", "Mills")
        assert second.metadata["path"] == "s3://bucket/docs/deep/b.txt"
        assert corpus.notes == ("s3://bucket/docs: passed over 1 .png.",)
        assert ids(read_corpus("s3://bucket/docs/*.md")) == ["s3://bucket/docs/a.md"]

    def test_the_time_is_that_of_the_store(self, s3):
        s3.pipe("/bucket/a.md", b"x")
        (document,) = read_corpus("s3://bucket/a.md")
        assert document.metadata["modified"][:19] == s3.modified("/bucket/a.md").isoformat()[:19]

    def test_what_is_not_there(self, s3):
        with pytest.raises(SourceNotFoundError, match="s3://bucket/a.md: there is no such file"):
            list(read_corpus("s3://bucket/a.md"))
        with pytest.raises(EmptyCorpusError, match="there is no file"):
            read_corpus("s3://bucket/*.md")

    def test_a_store_that_refuses_is_one_line(self, s3, monkeypatch):
        s3.pipe("/bucket/a.md", b"x")

        def refuse(*args):
            raise RuntimeError("Access\nDenied")

        monkeypatch.setattr(Store, "get_file", refuse)
        with pytest.raises(StorageError, match=r"cannot be fetched \(RuntimeError: Access Denied"):
            list(read_corpus("s3://bucket/a.md"))


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingDependencyError, match=r"gcsfs.*pip install 'millpond\[sources\]'"):
        read_corpus("gs://bucket/a.md")


@pytest.mark.parametrize("name", ["nowhere://a", "hf://datasets/owner"])
def test_an_address_that_nothing_reads(name):
    with pytest.raises(UsageError, match="hf://datasets/"):
        read_corpus(name)


def test_passwords_are_never_shown():
    assert hide_password("postgresql://me:s3cret@host/db") == "postgresql://me:***@host/db"
    assert hide_password("https://host/a:b@c") == "https://host/a:b@c"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    handler = partial(Quiet, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pages_and_files_of_the_web(site, tmp_path):
    (tmp_path / "c.csv").write_text("id,text\n1,mills\n")
    (tmp_path / "about").write_text("<h1>Mills</h1><p>grind corn</p>")
    assert ids(read_corpus(f"{site}/c.csv")) == ["1"]
    (page,) = read_corpus(f"{site}/about?lang=en")
    assert (page.doc_id, page.title) == (f"{site}/about?lang=en", "Mills")
    with pytest.raises(SourceNotFoundError, match="there is no such file"):
        list(read_corpus(f"{site}/gone.csv"))
