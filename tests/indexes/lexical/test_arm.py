"""The lexical arm: BM25 that depends on the rows alone, of any selection, whatever the segments."""

import math
from collections import Counter

import numpy as np
import pytest

from indexes.lexical.arm import FEW_ROWS, K1, B, LexicalArm
from indexes.lexical.build import write_rows
from indexes.search.selection import Selection
from retrieval.analysis import Analyser
from retrieval.errors import IndexCorruptError

WORDS = ["mill", "pond", "water", "grain", "wheel", "stone", "flour", "river", "rare"]


def make_texts(count, seed=0):
    random = np.random.default_rng(seed)
    shares = np.array([9, 8, 7, 6, 5, 4, 3, 2, 0.02])
    return [
        " ".join(random.choice(WORDS, random.integers(1, 30), p=shares / shares.sum()))
        for _ in range(count)
    ]


def make_arm(folder, texts, parts=1, language="none"):
    for rows in np.array_split(np.arange(len(texts)), parts):
        pairs = ((row, texts[row]) for row in rows.tolist())
        write_rows(folder, pairs, Analyser(language))
    return LexicalArm(sorted(folder.iterdir()), language)


def scores_by_formula(texts, query):
    """Lucene's BM25 (Kamphuis et al. 2020, table 1), of words between blanks."""
    documents = [text.split() for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = np.zeros(len(texts))
    for word, times in Counter(query.split()).items():
        holding = sum(word in words for words in documents)
        idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
        for row, words in enumerate(documents):
            count = words.count(word)
            norm = K1 * (1 - B + B * len(words) / mean)
            scores[row] += times * idf * count / (count + norm)
    return scores


def best_of(scores, rows, k):
    """The k best of these rows whose score is above 0, equal scores by row."""
    chosen = [row for row in rows if scores[row] > 0]
    return sorted(chosen, key=lambda row: (-scores[row], row))[:k]


def test_scores_are_those_of_the_formula_and_repeated_words_count_twice(tmp_path):
    texts = make_texts(50)
    found = make_arm(tmp_path, texts).score("mill mill rare stone", np.arange(50))
    expected = scores_by_formula(texts, "mill mill rare stone")
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == np.float32


def test_scores_and_order_do_not_depend_on_the_segments(tmp_path):
    texts = make_texts(200)
    whole = make_arm(tmp_path / "a", texts)
    parts = make_arm(tmp_path / "b", texts, parts=5)
    for query in ("mill", "pond rare", " ".join(WORDS)):
        one, other = (arm.search(query, 20, Selection(200)) for arm in (whole, parts))
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("share", [1.0, 0.7, 0.01])
def test_a_search_finds_the_best_rows_of_the_selection_with_the_scores_of_all(tmp_path, share):
    count = 3 * FEW_ROWS
    texts = make_texts(count)
    arm, mask = make_arm(tmp_path, texts), np.random.default_rng(1).random(count) < share
    selection = Selection(int(mask.sum()), None if share == 1 else mask)
    for query in ("mill pond", "rare", "river rare water"):
        every = arm.score(query, np.arange(count))
        scores, rows = arm.search(query, 25, selection)
        assert rows.tolist() == best_of(every, np.flatnonzero(mask).tolist(), 25)
        np.testing.assert_array_equal(scores, every[rows])
        np.testing.assert_array_equal(arm.score(query, rows[::-1]), scores[::-1])
        others = np.arange(0, count, 7)
        best, given = arm.search_and_score(query, 25, selection, others)
        np.testing.assert_array_equal(best, (scores, rows))
        np.testing.assert_array_equal(given, every[others])


def test_equal_scores_are_ordered_by_row_however_many_there_are(tmp_path):
    arm = make_arm(tmp_path, ["pond"] * 500 + ["mill"], parts=3)
    scores, rows = arm.search("pond", 5, Selection(501))
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert len(set(scores.tolist())) == 1


def test_rows_without_a_word_are_not_found_and_score_nothing(tmp_path):
    arm = make_arm(tmp_path, ["mill", "", "pond", "?"])
    assert arm.search("mill", 10, Selection(4))[1].tolist() == [0]
    assert arm.score("mill", np.array([1, 0, 3])).tolist()[::2] == [0, 0]
    for query in ("unheard", "", "?!", " "):
        scores, rows = arm.search(query, 10, Selection(4))
        assert (scores.dtype, rows.dtype, len(rows)) == (np.float32, np.int64, 0)
        assert arm.score(query, np.array([0, 2])).tolist() == [0, 0]
    nothing = Selection(0, np.zeros(4, np.bool_))
    assert len(arm.search("mill", 10, nothing)[1]) == 0


def test_a_query_of_100_kb_and_words_of_any_length_are_searched(tmp_path):
    arm = make_arm(tmp_path, ["mill pond", "x" * 70_000, "water"])
    long = " ".join(f"word{number}" for number in range(12_000)) + " water"
    assert len(long) > 100_000
    assert arm.search(long, 10, Selection(3))[1].tolist() == [2]
    assert arm.search("x" * 70_000, 10, Selection(3))[1].tolist() == [1]


def written(folder):
    """Which files there are, and when they were last written."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_opening_leaves_the_folder_as_it_was_and_works_when_it_is_gone(tmp_path):
    folder = tmp_path / "lexical"
    arm = make_arm(folder, make_texts(30))
    before = written(folder)
    folder.chmod(0o500)
    first = arm.search("mill", 5, Selection(30))[1].tolist()
    folder.chmod(0o700)
    assert written(folder) == before
    for path in folder.iterdir():
        path.unlink()
    assert arm.search("mill", 5, Selection(30))[1].tolist() == first


@pytest.mark.parametrize("suffix", [".term", ".idx", ".fieldnorm", ".fast", "meta.json"])
def test_a_truncated_file_is_an_error_that_says_what_to_type(tmp_path, suffix):
    arm = make_arm(tmp_path / "lexical", make_texts(30))
    [path] = [path for path in (tmp_path / "lexical").iterdir() if path.name.endswith(suffix)]
    path.write_bytes(path.read_bytes()[:10])
    message = r"lexical arm .* is damaged.*--arms dense,lexical"
    with pytest.raises(IndexCorruptError, match=message):
        LexicalArm(arm._files, "english").search("mill", 5, Selection(30))
