"""How much of some texts a model reads; the stand-in reads 15 words of each."""

import pytest

from benchmarks.scoring.searched import describe_cut
from embedder.splitting import CountedDocuments, Coverage
from retrieval import read_corpus
from tests.cli.conftest import WordEncoder


@pytest.fixture
def encoder():
    return WordEncoder("fake")


def count(encoder, *lengths):
    found = Coverage(encoder)
    for length in lengths:
        found.add("w " * length)
    return found


@pytest.mark.parametrize(
    ("lengths", "cut", "tokens", "unread"),
    [
        ((15, 3), 0, 18, 0),
        ((16, 3), 1, 19, 1),
        ((0,), 0, 0, 0),
        ((3000, 15), 1, 3015, 2985),  # estimated from its beginning
    ],
)
def test_what_is_not_read_is_counted(encoder, lengths, cut, tokens, unread):
    found = count(encoder, *lengths)
    assert found.to_json() == {
        "texts": len(lengths), "cut": cut, "tokens": tokens, "unread": unread
    }  # fmt: skip
    assert found.unread_share == pytest.approx(unread / max(1, tokens))


def test_passages_are_wanted_where_more_than_a_tenth_is_cut(encoder):
    assert not count(encoder, *[20], *[3] * 9).wants_passages
    assert count(encoder, *[20], *[3] * 8).wants_passages
    assert not Coverage(encoder).wants_passages
    assert count(encoder).passage_tokens == 15


def test_a_corpus_is_counted_as_it_is_read_with_its_titles(encoder, tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"id": 1, "title": "a b", "text": "' + "w " * 14 + '"}\n')
    documents = CountedDocuments(read_corpus(path), encoder)
    assert [document.doc_id for document in documents] == ["1"]
    assert documents.cut == {"texts": 1, "cut": 1, "tokens": 16, "unread": 1}
    assert describe_cut(documents.cut, "document") == [
        "1 document of 1 is longer than the model reads: 6.2% of all tokens were not read."
    ]
    assert describe_cut(None, "text") == describe_cut({"texts": 1, "cut": 0}, "text") == []
