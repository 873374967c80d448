"""``millpond index --passages`` and ``--vectors``; recall of approximate indexes; ``info``."""

import pytest

from cli import models
from cli.options import choose_passages
from indexes import read_manifest
from indexes.build import RECALL

LONG = "one two three four five six seven eight nine ten"


@pytest.fixture
def long_corpus(write_jsonl):
    return write_jsonl(
        "long.jsonl",
        {"_id": "long", "title": "T", "text": LONG, "year": 1},
        {"_id": "short", "text": "a b", "year": 2},
        {"_id": "empty", "text": "", "year": 3},
    )


def facts(millpond, folder):
    lines = millpond("info", folder).stdout.splitlines()
    return {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[-1] for line in lines}


def test_long_documents_are_cut_and_the_best_passage_is_shown(
    millpond, long_corpus, tmp_path, embedded
):
    folder = tmp_path / "i"
    result = millpond("index", long_corpus, "--out", folder, "--passages", 4, "--overlap", 1)
    assert result.exit_code == 0, result.stderr
    # 10 words, 4 each, 3 new ones a passage: 1 to 4, 4 to 7, 7 to 10; and one for each of the rest.
    assert "Indexed 3 documents as 5 passages in " in result.stderr
    assert embedded == [
        "T one two three four",
        "T  four five six seven",
        "T  seven eight nine ten",
        "a b",
        "",
    ]
    assert read_manifest(folder).passages == {"tokens": 4, "overlap": 1}
    shown = millpond("search", folder, "T eight nine", "-k", 1).stdout.splitlines()
    assert shown[0].split()[2:] == ["long", "T"]
    assert shown[1] == "    seven eight nine ten"
    assert facts(millpond, folder)["passages"] == "5, of at most 4 tokens, overlapping by 1"
    assert "documents" not in facts(millpond, folder)


def test_the_overlap_is_an_eighth_if_not_typed():
    assert choose_passages(100, None) == {"tokens": 100, "overlap": 12}
    assert choose_passages(7, None) == {"tokens": 7, "overlap": 0}
    assert choose_passages(None, None) == {}


@pytest.mark.parametrize(
    ("args", "words", "models"),
    [
        (("--overlap", 2), "--overlap goes with --passages", 0),
        (("--passages", 8, "--overlap", 5), "expected 0 to 4", 0),
        (("--passages", 0), "--passages", 0),
        (("--passages", 17), "the model reads 16 per text. Type 15 or less", 1),
        (("--vectors", "float61"), "Did you mean 'float16'?", 0),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    args, words, models, millpond, long_corpus, tmp_path, loaded
):
    result = millpond("index", long_corpus, "--out", tmp_path / "i", *args)
    assert result.exit_code == 2, result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr
    assert len(loaded) == models
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (14, None),  # 14 + the title's 1 + EOS are the 16 that the model reads
        (15, "2 of them are taken by the title of 'long'"),
        (16, "Type --passages 14 or less"),
    ],
)
def test_a_title_that_leaves_a_passage_no_room_is_told_once(
    tokens, words, millpond, long_corpus, tmp_path
):
    result = millpond("index", long_corpus, "--out", tmp_path / "i", "--passages", tokens)
    assert result.exit_code == 0
    notes = [line for line in result.stderr.splitlines() if "of them are taken" in line]
    assert len(notes) == (words is not None)
    assert all(words in note for note in notes)


def test_float16_takes_half_the_room_and_is_shown(millpond, corpus, tmp_path):
    for kind in ("float32", "float16"):
        result = millpond("index", corpus, "--out", tmp_path / kind, "--vectors", kind)
        assert result.exit_code == 0, result.stderr
        assert facts(millpond, tmp_path / kind)["vectors"] == f"32 numbers, cosine, {kind}"
    wide, half = (
        read_manifest(tmp_path / kind).files["vectors/00000"].bytes
        for kind in ("float32", "float16")
    )
    assert wide - half == 3 * 32 * 2


def test_info_lists_fields_with_their_types_and_why_some_have_none(millpond, write_jsonl, tmp_path):
    path = write_jsonl(
        "c.jsonl",
        {"_id": "a", "text": "x", "year": 1, "score": 0.5, "tags": ["x"], "mixed": 1, "no": None},
        {"_id": "b", "text": "y", "year": 2, "score": 1, "day": "2020-01-01", "mixed": "x"},
    )
    millpond("index", path, "--out", tmp_path / "i")
    found = facts(millpond, tmp_path / "i")
    wanted = {
        "year": "int",
        "score": "float",
        "tags": "list of string",
        "day": "date",
        "mixed": "several types (int, string), no filter",
        "no": "null everywhere",
        "deleted": "0",
    }
    assert wanted.items() <= found.items()
    assert "recall@10" not in found


def test_an_approximate_index_says_what_it_finds(millpond, corpus, tmp_path):
    result = millpond("index", corpus, "--out", tmp_path / "i", "--factory", "HNSW8")
    line = "recall@10 1.00 against exact search (3 stored vectors as queries)"
    assert line in result.stderr.splitlines()
    assert facts(millpond, tmp_path / "i")["recall@10"] == line.partition(" ")[2]


def test_a_low_recall_is_a_warning_with_advice(millpond, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("indexes.build.measure_recall", lambda index: 0.63)
    result = millpond("index", corpus, "--out", tmp_path / "i", "--factory", "HNSW8")
    (note,) = [line for line in result.stderr.splitlines() if "recall@10" in line]
    found = "recall@10 0.63 against exact search (3 stored vectors as queries"
    assert note.startswith(f"Warning: {found}")
    assert "HNSW8 misses 37% of the best documents" in note
    assert f"millpond reindex {tmp_path / 'i'} --factory TYPE" in note


def test_an_exact_index_says_nothing_of_recall(millpond, corpus, tmp_path):
    assert "recall@10" not in millpond("index", corpus, "--out", tmp_path / "i").stderr


def test_the_name_of_recall_is_that_of_the_library():
    assert models.RECALL == RECALL
