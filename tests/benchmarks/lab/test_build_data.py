"""What becomes a training pair of the built-in model, and what must never become one."""

import json
from collections import Counter

import pytest

from benchmarks.lab.builtin import build_data
from benchmarks.lab.builtin.build_data import (
    SOURCES,
    Source,
    build_one,
    choose_sources,
    write_report,
)
from benchmarks.lab.builtin.decontaminate import Benchmarks, read_benchmarks, word_grams
from benchmarks.lab.builtin.pairs import (
    MOST_PER_QUERY,
    POSITIVE_CHARS,
    Pair,
    Sieve,
    cut_at_sentence,
    detokenise,
    find_fault,
    first_and_rest,
    sentence_case,
    split_sentences,
    text_key,
)
from benchmarks.lab.builtin.sources import apt
from benchmarks.lab.builtin.sources.apt import Workplace, read_descriptions
from benchmarks.lab.builtin.sources.debian import (
    distinct_descriptions,
    parse_descriptions,
    tidy_short,
)
from benchmarks.lab.builtin.sources.manuals import (
    page_pairs,
    parse_blocks,
    tidy_heading,
    tidy_signature,
)
from benchmarks.lab.builtin.sources.ontologies import (
    is_worded,
    parse_terms,
    readable_synonyms,
    sibling_definitions,
)
from benchmarks.lab.builtin.sources.shared import pick_claims, strip_echo, tidy_question
from benchmarks.lab.builtin.sources.wordnet import (
    count_senses,
    name_synset,
    parse_synset,
    sibling_glosses,
    split_gloss,
)
from retrieval.errors import MissingDependencyError, SourceNotFoundError, UnknownNameError


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("what film did beyonce star in ?", "what film did beyonce star in?"),
        ("parts -lrb- e.g. the ear -rrb- , too", "parts (e.g. the ear), too"),
        ("papa john 's is n't open", "papa john's isn't open"),
        ('the term " holocaust ? "', 'the term "holocaust?"'),
        ("known as ` lighting ' .", "known as 'lighting'."),
        ('he said : " the area', "he said: the area"),
        ("without borders ' help", "without borders' help"),
        ("it cost $ 5 million", "it cost $5 million"),
    ],
)
def test_tokens_become_text_again(tokens, text):
    assert detokenise(tokens) == text


def test_a_lower_cased_sentence_gets_its_first_capital_back():
    assert sentence_case("where am i going?") == "Where am I going?"


def test_an_abbreviation_does_not_end_a_sentence():
    text = "Some drugs, e.g. Aspirin, thin the blood. Others do not."
    assert split_sentences(text) == [
        "Some drugs, e.g. Aspirin, thin the blood.",
        "Others do not.",
    ]


def test_a_long_text_is_cut_after_a_whole_sentence():
    assert cut_at_sentence("One two. Three four. Five six.", 21) == "One two. Three four."
    assert cut_at_sentence("a sentence longer than the limit", 12) == "a sentence"


def test_the_first_sentence_asks_for_the_rest():
    first, rest = "A" + "b" * 38 + ".", "C" + "d" * 118 + "."
    assert list(first_and_rest(f"{first} {rest}")) == [Pair(first, rest)]
    assert list(first_and_rest(f"Short. {rest}")) == []


@pytest.mark.parametrize(
    ("pair", "fault"),
    [
        (Pair("", "a text"), "empty side"),
        (Pair("Same text!", "same text"), "identical sides"),
        (Pair("q" * 301, "a text that is fine"), "query too short or too long"),
        (Pair("a query", "short"), "positive too short"),
        (Pair("a query", "x = 1; y = [2, 3]; z += {4: 5}"), "not English-looking"),
        (Pair("a query", "текст на другом языке"), "not English-looking"),
        (Pair("a query", "an answer in plain words"), None),
    ],
)
def test_an_unfit_pair_is_named(pair, fault):
    assert find_fault(pair) == fault


def test_the_sieve_cuts_cleans_and_counts():
    sieve = Sieve()
    long_text = "One short sentence. " * 100
    many = [Pair("a common query", f"answer of kind {letter}") for letter in "abcde"]
    pairs = [Pair("a  query", long_text, ("A query", "other\ntext", "other text")), *many, many[0]]
    kept = list(sieve(pairs))
    assert kept[0].query == "a query"
    assert kept[0].negatives == ("other text",)
    assert len(kept[0].positive) <= POSITIVE_CHARS[1]
    assert len(kept) == 1 + MOST_PER_QUERY
    assert sieve.dropped == {f"query already has {MOST_PER_QUERY} positives": 2, "repeated pair": 1}


NINE = "one two three four five six seven eight nine"


@pytest.fixture
def benchmarks():
    return Benchmarks(frozenset({text_key("A plane takes off.")}), frozenset(word_grams(NINE)))


def test_nine_words_hold_two_runs_of_eight():
    assert len(list(word_grams(NINE))) == 2


@pytest.mark.parametrize(
    ("text", "overlap"),
    [
        ("a PLANE, takes off", "equal to a benchmark text"),
        ("fly: a plane takes off; go up", "holds a benchmark sentence"),
        ("He waits. A plane takes off. He goes.", "holds a benchmark sentence"),
        (f"zero {NINE}", "8-gram of an STS-B or SciFact test text"),
        ("one two three four five six seven", None),
    ],
)
def test_what_touches_a_benchmark_is_found(benchmarks, text, overlap):
    assert benchmarks.find_overlap(text) == overlap


def test_a_touched_side_ends_the_pair_and_a_touched_negative_only_itself(benchmarks):
    dropped = Counter()
    pairs = [
        Pair("a plane takes off", "something else"),
        Pair("a train leaves", "the train is leaving", ("A plane takes off", "a dog sleeps")),
    ]
    kept = list(benchmarks.clean(pairs, dropped))
    assert kept == [Pair("a train leaves", "the train is leaving", ("a dog sleeps",))]
    assert dropped == {"equal to a benchmark text": 1, "negative (the pair was kept)": 1}


@pytest.fixture
def shared_folder(tmp_path):
    """One STS row, one judged claim and one document, laid out like the shared data."""
    scifact = tmp_path / "shared" / "beir" / "scifact"
    (scifact / "qrels").mkdir(parents=True)
    (tmp_path / "shared" / "sts").mkdir()
    (tmp_path / "shared" / "sts" / "STSB-test.tsv").write_text(
        "score\tsentence1\tsentence2\n2.5\tA girl is styling her hair.\tA girl combs.\n"
    )
    (scifact / "queries.jsonl").write_text(
        json.dumps({"_id": "1", "text": f"{NINE} judged"})
        + "\n"
        + json.dumps({"_id": "2", "text": "a claim of the train split with more than eight words"})
    )
    document = {"_id": "d", "title": "Oxygen", "text": "Cells need oxygen. They die without it."}
    (scifact / "corpus.jsonl").write_text(json.dumps(document))
    (scifact / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\td\t1\n")
    return tmp_path / "shared"


def test_benchmark_texts_are_read_from_sts_and_beir(shared_folder):
    found = read_benchmarks(shared_folder)
    assert found.find_overlap("a girl is styling her hair") == "equal to a benchmark text"
    assert found.find_overlap("They die without it.") == "equal to a benchmark text"
    assert found.find_overlap("oxygen") is None  # a one-word title is no benchmark text
    assert found.find_overlap(f"{NINE} more") == "8-gram of an STS-B or SciFact test text"
    assert found.find_overlap("of the train split with more than eight") is None


def test_nothing_is_built_unchecked(tmp_path, capsys):
    with pytest.raises(SourceNotFoundError, match="cannot be checked"):
        read_benchmarks(tmp_path)
    arguments = ["--shared", str(tmp_path), "--out", str(tmp_path / "out")]
    assert build_data.main(arguments) == 2
    assert "--shared FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_answer_loses_its_echo_and_its_boilerplate():
    sentences = [
        "What is gout?",
        "Gout is a kind of arthritis.",
        "You can use the MedlinePlus Medical Dictionary to look up the definitions.",
    ]
    assert strip_echo(sentences) == ["Gout is a kind of arthritis."]
    assert tidy_question("What is (are) Gout ?") == "What is Gout?"


def test_a_claim_stands_alone_and_shares_a_word_with_its_evidence():
    claim = "High levels of uric acid crystals cause painful inflammation in the joints."
    sentences = [
        claim,
        "It can last for several days and inflammation may come back to the same joint again.",
        "Doctors treat inflammation with drugs. " + "The acid is then measured often. " * 5,
    ]
    assert pick_claims(sentences, [False] * 3) == [0]
    assert pick_claims(sentences, [True, False, False]) == []


DESCRIPTIONS = """\
Package: libfrog-dev
Description-md5: 00
Description-en: library to talk to frogs - development files
 Frogs are asked and answer.
 .
 This package contains the headers.

Package: libfrog1
Description-md5: 01
Description-en: library to talk to frogs
 Frogs are asked
 and answer.
 .
 Features:
  * croaks
 .
 This package contains the shared library.

Package: frog-old
Description-md5: 02
Description-en: transitional package for frog
 It can be removed.
"""


def test_one_package_of_a_family_is_kept_without_boilerplate():
    kept = list(distinct_descriptions(parse_descriptions(DESCRIPTIONS)))
    assert [description.package for description in kept] == ["libfrog1"]
    assert kept[0].paragraphs == ("Frogs are asked and answer.", "Features: croaks")


def test_the_tail_that_tells_a_family_apart_is_cut():
    assert tidy_short("library to talk to frogs (documentation)") == "library to talk to frogs"
    assert tidy_short("fast frog") == "fast frog"


UNIT = '00000001 03 n 02 whole 0 unit 0 000 | an assemblage of parts; "the team is a unit"  '
PART = "00000002 03 n 01 ice_floe 0 001 @ 00000001 n 0000 | ice that floats"
BANK = "00000003 03 n 01 bank 0 001 @ 00000001 n 0000 | sloping land"
GOOD = "00000004 00 s 01 bank(p) 0 001 & 00000003 a 0000 | being good"


def test_a_wordnet_line_is_parsed():
    synset = parse_synset(PART)
    assert (synset.synset_id, synset.lemmas) == ("n00000002", ("ice floe",))
    assert (synset.gloss, synset.hypernyms) == ("ice that floats", ("n00000001",))
    assert parse_synset(UNIT).examples == ("the team is a unit",)
    satellite = parse_synset(GOOD)
    assert (satellite.synset_id, satellite.lemmas) == ("a00000004", ("bank",))


def test_definitions_and_examples_of_a_gloss_are_told_apart():
    gloss = 'hurried; in haste; "a hasty word"; "so it goes"- Anon.'
    assert split_gloss(gloss) == (("hurried", "in haste"), ("a hasty word", "so it goes"))


def test_siblings_are_negatives_and_an_ambiguous_word_gets_its_hypernym():
    synsets = {s.synset_id: s for s in map(parse_synset, (UNIT, PART, BANK, GOOD))}
    assert sibling_glosses(synsets)["n00000002"] == ("sloping land",)
    senses = count_senses(synsets.values())
    assert name_synset(synsets["n00000003"], synsets, senses) == "bank (whole)"
    assert name_synset(synsets["n00000002"], synsets, senses) == "ice floe"


OBO = r"""format-version: 1.2

[Term]
id: GO:1
name: lung_growth
def: "Growth of the \"lung\"." [PMID:1]
synonym: "growth of the lung" EXACT [GO:1]
synonym: "C20H33NO" EXACT FORMULA [X:1]
synonym: "lung" BROAD [X:1]
is_a: GO:0 ! growth

[Term]
id: GO:2
name: liver growth
def: "Growth of the liver." []
is_a: GO:0 ! growth

[Term]
id: GO:3
name: old growth
is_obsolete: true
"""


def test_terms_of_an_obo_file_are_parsed():
    lung, liver = parse_terms(OBO)
    assert (lung.name, lung.definition) == ("lung growth", 'Growth of the "lung".')
    assert readable_synonyms(lung) == ["growth of the lung"]
    assert sibling_definitions([lung, liver])[lung.name] == (liver.definition,)


@pytest.mark.parametrize(
    ("name", "worded"),
    [
        ("fatty-acyl-CoA metabolism", True),
        ("2-methyl-1,3-dinitrobenzene", False),
        ("mu-peroxido-bis(hydroxidodioxidosulfur)", False),
        ("AT", False),
    ],
)
def test_systematic_chemical_names_are_no_words(name, worded):
    assert is_worded(name) is worded


PAGE = """<html><head><title>No</title></head><body>
<div class="related"><p>Previous page</p></div>
<h1>json — JSON encoder<a class="headerlink" href="#x">¶</a></h1>
<h2>1.2. Basic Usage</h2><p>{basic}</p><pre>code()</pre>
<p>The value <span class="math">x</span> is meant.</p>
<div class="math">y = x</div>
<dl><dt class="sig">class json.dump(obj, fp=None)<a class="headerlink">¶</a></dt>
<dd><p>{dump}<br>It ends.</p></dd></dl></body></html>"""


def test_headings_and_signatures_ask_for_the_text_under_them():
    basic, dump = "Basic words " * 8 + "end.", "Dump words " * 8 + "end."
    assert list(page_pairs(parse_blocks(PAGE.format(basic=basic, dump=dump)))) == [
        Pair("json: JSON encoder: Basic Usage", basic),
        Pair("json.dump(obj, fp)", f"{dump} It ends."),
    ]


def test_a_heading_loses_its_number_and_a_signature_its_defaults():
    assert tidy_heading("13.1. Introduction") == "Introduction"
    assert tidy_signature("class a.B(x=(1), *, y='z')") == "a.B(x=(1), *, y)"
    assert tidy_signature(f"f({'x' * 120})") == "f"


def test_an_unknown_source_names_the_nearest():
    assert choose_sources(["snli", "medquad"]) == ["medquad", "snli"]
    with pytest.raises(UnknownNameError, match="Did you mean 'snli'"):
        choose_sources(["snl"])


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_states_its_licence_and_origin(name):
    assert SOURCES[name].licence
    assert SOURCES[name].origin


def test_a_file_is_written_with_its_hash_and_what_was_dropped(tmp_path, benchmarks, monkeypatch):
    pairs = [Pair("a train leaves", "the train is leaving"), Pair("a plane takes off", "it flies")]
    monkeypatch.setitem(SOURCES, "tiny", Source("MIT", "this test", lambda _: iter(pairs)))
    entry = build_one("tiny", Workplace(tmp_path, tmp_path), benchmarks, tmp_path)
    assert (entry["rows"], entry["dropped"]) == (1, {"equal to a benchmark text": 1})
    records = [json.loads(line) for line in (tmp_path / "tiny.jsonl").read_text().splitlines()]
    assert records == [{"query": "a train leaves", "positive": "the train is leaving"}]


def test_a_later_build_of_some_sources_keeps_the_entries_of_the_others(tmp_path):
    path = tmp_path / "SOURCES.json"
    write_report(path, {"snli": {"sha256": "1"}, "medquad": {"sha256": "2"}})
    write_report(path, {"snli": {"sha256": "3"}, "medquad": {"skipped": "no file"}})
    files = json.loads(path.read_text())["files"]
    assert files == {"medquad": {"sha256": "2"}, "snli": {"sha256": "3"}}


def test_without_apt_a_source_is_skipped_with_its_reason(tmp_path, benchmarks, monkeypatch):
    monkeypatch.setattr(apt.shutil, "which", lambda program: None)
    with pytest.raises(MissingDependencyError, match="apt-get"):
        read_descriptions()
    entry = build_one("debian_packages", Workplace(tmp_path, tmp_path), benchmarks, tmp_path)
    assert "apt-get" in entry["skipped"]
    assert not list(tmp_path.glob("*.jsonl")) and not list(tmp_path.glob("*.partial"))
