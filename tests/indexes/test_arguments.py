"""What reaches an index from Python is checked like what comes from a file or the command line."""

import numpy as np
import pytest

from embedder import Embedder
from indexes import Index
from retrieval import Document, Query, read_corpus
from retrieval.errors import UsageError
from retrieval.filters import parse_filter
from retrieval.retriever import Retriever
from tests.indexes.fakes import HashingEncoder, make_documents


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arguments") / "i"
    return Index.create(folder, HashingEncoder(), make_documents(5))


@pytest.fixture(scope="module")
def retriever(index):
    return Retriever(index.encoder, index)


def ways_of_asking(index, retriever):
    """Every way in which a text and k reach a search."""
    yield lambda text, k: index.search(text, k)
    yield lambda text, k: index.search(["mill", text], k)
    yield lambda text, k: index.search(text, k, mode="lexical")
    yield lambda text, k: index.search(np.zeros((1, 16), np.float32), k, texts=[text])
    yield lambda text, k: retriever.search(text, k)
    yield lambda text, k: retriever.search(text, k, mode="lexical")
    yield lambda text, k: list(retriever.search_many([Query("q", text)], k))


@pytest.mark.parametrize(
    ("text", "k", "words"),
    [
        ("", 10, "is empty; expected what to look for"),
        (" \n\u3000", 10, "is empty; expected what to look for"),
        ("a\0b", 10, "holds a NUL character at position 2"),
        ("\ud800", 10, "holds half of a surrogate pair"),
        ("mill", 0, "k is 0; it must be 1 or more"),
        ("mill", 2.5, "k is 2.5; expected a whole number"),
        ("mill", True, "k is True; expected a whole number"),
        ("mill", None, "k is None; expected a whole number"),
        ("mill", "3", "k is '3'; expected a whole number"),
    ],
)
def test_a_search_for_nothing_or_for_no_number_of_hits_is_refused(text, k, words, index, retriever):
    for ask in ways_of_asking(index, retriever):
        with pytest.raises(UsageError, match=words):
            ask(text, k)


def test_the_text_that_is_empty_is_named(index, retriever):
    with pytest.raises(UsageError, match="Text 2 of 3 is empty"):
        index.search(["mill", "", "pond"])
    with pytest.raises(UsageError, match="Text 1 of 2 is of type NoneType; expected a string"):
        index.search([None, "pond"])
    with pytest.raises(UsageError, match="Query 'q2': The text is empty"):
        list(retriever.search_many([Query("q1", "mill"), Query("q2", " ")]))


def test_numbers_of_numpy_and_tuples_of_texts_will_do(index):
    assert len(index.search("mill", np.int64(2))) == 2
    assert len(index.search(("mill", "pond"), 2)) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weight": "0.5"}, "weight is '0.5'; expected a number from 0 to 1"),
        ({"weight": True}, "weight is True; expected a number"),
        ({"where": 5}, "filter is of type int; expected a text"),
        ({"mode": ""}, "Unknown mode ''. Accepted: hybrid"),
        ({"mode": 5}, "Unknown mode 5. Accepted: hybrid"),
        ({"fusion": True}, "Unknown fusion True. Accepted: convex"),
    ],
)
def test_options_of_another_type_are_refused(options, words, index, retriever):
    for search in (index.search, retriever.search):
        with pytest.raises(UsageError, match=words):
            search("mill", **options)


@pytest.mark.parametrize("queries", [["mill"], "mill", [None]])
def test_search_many_takes_queries_alone(queries, retriever):
    with pytest.raises(UsageError, match=r"expected a Query\(query_id, text\)"):
        list(retriever.search_many(queries))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (Document("1", None), "'text' is null; expected a string"),
        (Document("1", b"x"), "'text' is binary data"),
        (Document("1", "a\0b"), "'text' holds a NUL character"),
        (Document("1", "\ud800"), "'text' holds half of a surrogate pair"),
        (Document("1", "x", None), "'title' is null"),
        (Document("", "x"), "'doc_id' is empty"),
        (Document(None, "x"), "'doc_id' is null"),
        (Document("a\tb", "x"), "'doc_id' is 'a.tb', with the control character U[+]0009"),
        (Document("i" * 2000, "x"), "'doc_id' is 2000 bytes long; expected at most 1024"),
        (Document("1", "x", metadata=None), "'metadata' is null; expected a dict"),
        (Document("1", "x", metadata={1: 2}), "the field name 1 is an integer"),
        (Document("1", "x", metadata={"a": {1}}), "'a' is of type set; expected a string, a num"),
        (Document("1", "x", metadata={"a": [object()]}), "'a' is of type object"),
        (Document("1", "x", metadata={"a": 2**70}), "'a' is an integer beyond 64 bits"),
        ({"id": "1", "text": "x", 5: 6}, "the field name 5 is an integer"),
    ],
)
def test_a_document_from_python_is_checked_like_one_from_a_file(document, words, index, tmp_path):
    for take in (
        lambda: Index.create(tmp_path / "i", HashingEncoder(), [document]),
        lambda: index.add([document]),
        lambda: index.update([document]),
    ):
        with pytest.raises(UsageError, match=words):
            take()
    assert len(index) == 5


def test_values_from_python_are_kept_as_those_of_a_file(tmp_path):
    given = {"n": np.int64(3), "nan": float("nan"), "o": {"b": [1, {"c": None}]}, "t": (1, 2)}
    with Index.create(tmp_path / "i", HashingEncoder(), [Document(5, "x", metadata=given)]) as made:
        assert made.fetch(["5"])["5"].metadata == {
            "n": 3,
            "nan": None,
            "o": '{"b": [1, {"c": null}]}',
            "t": [1, 2],
        }


@pytest.mark.parametrize("corpus", [None, 5, b"x", {"id": "1", "text": "x"}, Document("1", "x")])
def test_what_is_no_corpus_is_refused(corpus, index, tmp_path):
    for take in (lambda: Index.create(tmp_path / "i", HashingEncoder(), corpus),):
        with pytest.raises(UsageError, match="The corpus is of type .*; expected a list of Docum"):
            take()


@pytest.mark.parametrize(
    ("doc_ids", "words"),
    [
        (None, "The ids are None; expected an id, or a list of ids"),
        (5, "The ids are 5; expected"),
        ([5], "An id is 5; expected a string, such as '5'"),
        (["d1", None], "An id is None; expected a string"),
    ],
)
def test_ids_are_strings(doc_ids, words, index):
    for take in (index.delete, index.fetch):
        with pytest.raises(UsageError, match=words):
            take(doc_ids)


@pytest.mark.parametrize("encoder", ["millpond-135m", 5])
def test_the_name_of_a_model_is_no_model(encoder, index, tmp_path):
    for take in (
        lambda: Index.create(tmp_path / "i", encoder, make_documents(2)),
        lambda: Index.open(index.folder, encoder),
        lambda: Retriever(encoder, index),
    ):
        with pytest.raises(UsageError, match=r"expected a model, .* millpond.Embedder.load\(.mill"):
            take()


@pytest.mark.parametrize("wrong", [None, 5, 3.5, b"index", object()])
def test_what_is_of_another_kind_is_named(index, wrong):
    name = type(wrong).__name__
    calls = [
        lambda: Index.open(wrong),
        lambda: Index.create(wrong, index.encoder, []),
        lambda: Retriever.open([wrong]),
        lambda: Embedder.load(wrong),
        lambda: Embedder(wrong, None),
        lambda: parse_filter(wrong),
        lambda: read_corpus([wrong]),
    ]
    if wrong is not None:  # the default
        calls.append(lambda: Index.create("unused", index.encoder, [], wrong))
        calls.append(lambda: index.reindex(out=wrong))
        calls.append(lambda: Retriever.open(index, model=wrong))
    for call in calls:
        with pytest.raises(UsageError, match=f"is of type {name}; expected"):
            call()
    if not isinstance(wrong, bytes):  # whose parts are numbers
        for call in (Retriever.open, read_corpus):
            with pytest.raises(UsageError, match=f"is of type {name}; expected"):
                call(wrong)


def test_an_empty_path_is_not_the_current_folder(index):
    for call in (Index.open, lambda path: Index.create(path, index.encoder, [])):
        with pytest.raises(UsageError, match="path is empty"):
            call("")
