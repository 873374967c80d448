"""``hf://datasets/...``: a data set of a hub, of which a folder stands in."""

import pytest

from retrieval import read_corpus
from retrieval.corpus import remote
from retrieval.errors import SourceNotFoundError, StorageError, UsageError

datasets = pytest.importorskip("datasets", reason="datasets is not installed")


@pytest.fixture(autouse=True)
def hub_answers(monkeypatch):
    monkeypatch.setattr(remote, "reach_hub", lambda *name, **options: None)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Data sets are folders below tmp_path/hub."""
    folder = tmp_path / "hub/owner/pages"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"id": 1, "text": "mills"}\n{"id": 2, "text": "frogs"}\n')
    (folder / "test.jsonl").write_text('{"id": 3, "text": "otters"}\n')
    load = datasets.load_dataset

    def load_local(name, config=None, *, revision=None, streaming):
        assert streaming
        return load(str(tmp_path / "hub" / name), config, streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load_local)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def test_the_split_train_is_read_and_the_others_are_named(hub):
    corpus = read_corpus("hf://datasets/owner/pages")
    assert [(d.doc_id, d.text) for d in corpus] == [("1", "mills"), ("2", "frogs")]
    assert corpus.notes == (
        "hf://datasets/owner/pages: read the split 'train'. Others: test (add ?split=NAME).",
    )


def test_a_split_is_named(hub):
    corpus = read_corpus("hf://datasets/owner/pages?split=test")
    assert [d.doc_id for d in corpus] == ["3"]
    assert corpus.notes == ()
    with pytest.raises(UsageError, match="there is no split 'dev'; it has "):
        list(read_corpus("hf://datasets/owner/pages?split=dev"))
    with pytest.raises(UsageError, match="expected config and split"):
        list(read_corpus("hf://datasets/owner/pages?spilt=dev"))


@pytest.mark.parametrize(
    ("raised", "expected", "words"),
    [
        (FileNotFoundError("x"), SourceNotFoundError, "there is no such data set"),
        (ValueError("Config name\nis missing."), UsageError, "Config name is missing."),
        (ConnectionError("no route"), StorageError, "cannot be fetched .*no route"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(monkeypatch, raised, expected, words):
    def refuse(*args, **options):
        raise raised

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(expected, match=words):
        list(read_corpus("hf://datasets/owner/pages"))


def test_a_hub_that_cannot_be_reached_is_told_before_the_library_tries_for_minutes(monkeypatch):
    def refuse(name, file, *, revision, kind):
        assert (name, file, revision, kind) == ("owner/pages", "README.md", "v1", "dataset")
        raise OSError("https://hub.test cannot be reached (no route).")

    monkeypatch.setattr(remote, "reach_hub", refuse)
    with pytest.raises(StorageError, match=r"owner/pages@v1: .*hub.test cannot be reached"):
        list(read_corpus("hf://datasets/owner/pages@v1"))
