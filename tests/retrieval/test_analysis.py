"""Text as words: every script, identifiers, stems and stop words, and the language they are in."""

import unicodedata

import pytest

from retrieval.analysis import Analyser, detect_language, list_languages
from retrieval.errors import UnknownNameError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The mills, grinding.", ["the", "mill", "grind"]),
        ("shutil.rmtree", ["shutil.rmtree", "shutil", "rmtree"]),
        ("HTTP-404", ["http-404", "http", "404"]),
        ("snake_case", ["snake_case", "snake", "case"]),
        ("PowerPoint", ["powerpoint", "power", "point"]),
        ("getHTTPStatus", ["gethttpstatus", "get", "http", "status"]),
        ("mRNA", ["mrna", "rna"]),
        ("__init__()", ["init"]),
        ("C, C++ and C#", ["c", "c++", "c", "and", "c#", "c"]),
        ("plan 9", ["plan", "9"]),
        ("the dog's, don't", ["the", "dog", "don"]),
        ("a/b", ["a/b", "a", "b"]),
        ("", []),
        ("?! ... --", []),
    ],
)
def test_english_text_becomes_these_words(text, words):
    assert Analyser("english").tokens(text) == words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cafe\u0301", "CAFÉ"),
        ("\uff4d\uff49\uff4c\uff4c", "mill"),
        ("ﬁne", "fine"),
        ("\u0130stanbul", "istanbul"),
        ("ISPARTA", "\u0131sparta"),
        ("Straße", "STRASSE"),
        ("ΟΔΟΣ", "οδος"),
        ("soft\u00adware", "software"),
        ("كِتَاب", "كتاب"),
        ("می\u200cروم", "میروم"),
        ("ｶﾞ", "ガ"),
        ("\ufdfa", "صلى الله عليه وسلم"),
        ("\ufdfb", "جل جلاله"),
        ("\ufb31\u05d0", "בא"),
        ("mill\ufe70", "mill"),
    ],
)
def test_the_same_word_is_the_same_however_it_is_written(one, other):
    analyser = Analyser()
    assert analyser.tokens(one) == analyser.tokens(other) != []


@pytest.mark.parametrize("language", ["none", "english", "arabic"])
def test_no_sign_becomes_a_word_with_a_blank(language):
    composed = ((sign, unicodedata.normalize("NFKC", sign)) for sign in map(chr, range(0x20000)))
    spaced = "x".join(sign for sign, written in composed if written.split() != [sign])
    words = Analyser(language).tokens(spaced)
    assert len(words) > 1000
    assert [word for word in words if word.split() != [word]] == []


def test_vowel_signs_do_not_end_a_word():
    assert Analyser().tokens("हिन्दी में पढ़ाई") == [
        *Analyser().tokens("हिन्दी"),
        *Analyser().tokens("में"),
        *Analyser().tokens("पढ़ाई"),
    ]
    assert len(Analyser().tokens("हिन्दी में पढ़ाई")) == 3


def test_text_without_blanks_is_characters_and_pairs_and_a_query_pairs():
    assert Analyser().tokens("Go入門書") == ["go", "入", "門", "書", "入門", "門書"]
    assert Analyser().query_tokens("Go入門書") == ["go", "入門", "門書"]
    assert Analyser().query_tokens("茶") == ["茶"]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("How do I delete a folder?", ["delet", "folder"]),
        ("Who can tell me what this is for, and where?", ["tell"]),
        ("Which of them should have been closed?", ["close"]),
    ],
)
def test_questions_are_asked_by_the_words_that_tell_something(question, words):
    assert Analyser("english").query_tokens(question) == words


def test_a_query_leaves_stop_words_out_unless_it_has_no_others():
    analyser = Analyser("english")
    assert analyser.query_tokens("the mill and the pond") == ["mill", "pond"]
    assert analyser.query_tokens("to be or not to be") == ["to", "be", "or", "not", "to", "be"]
    assert Analyser().query_tokens("the mill") == ["the", "mill"]


def test_matched_words_are_as_they_are_written_in_the_document():
    matched = Analyser("english").matched
    assert matched("delete folder", "Folders: shutil.rmtree Deletes a folder.") == [
        "Folders",
        "Deletes",
        "folder",
    ]
    assert matched("rmtree", "shutil.rmtree removes") == ["rmtree"]
    assert matched("shutil.rmtree", "shutil.rmtree removes") == ["shutil.rmtree"]
    assert matched("cafe\u0301", "the CAFE\u0301") == ["CAFE\u0301"]
    assert matched("日本語入門", "Python入門を日本で") == ["入門", "日本"]
    assert matched("mill", "pond") == []


def test_a_word_of_any_length_is_cut_alike_in_documents_and_queries():
    analyser = Analyser("english")
    [word] = analyser.tokens("x" * 70_000)
    assert analyser.query_tokens("x" * 70_000) == [word]
    assert len(word) == 200


@pytest.mark.parametrize("language", list_languages())
def test_every_language_makes_words(language):
    assert Analyser(language).tokens("Mill 42")[-1] == "42"


def test_an_unknown_language_lists_those_that_exist():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'english'\?"):
        Analyser("englisch")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (
            "The mill stands by the pond, and the miller grinds corn for the whole village.",
            "english",
        ),
        ("Die Mühle steht am Teich, und der Müller mahlt Korn für das ganze Dorf.", "german"),
        ("Мельница стоит возле пруда, и мельник мелет зерно для всей деревни.", "russian"),
        ("水車小屋は池のそばにあり、粉屋は村のために穀物を挽いている。", "none"),
        ("12 34 56", "none"),
    ],
)
def test_the_language_of_the_texts_is_detected(text, language):
    assert detect_language([text] * 5) == language


def test_texts_of_two_languages_have_none():
    english = "The mill stands by the pond, and the miller grinds corn for the village. " * 15
    german = "Die Mühle steht am Teich, und der Müller mahlt Korn für das ganze Dorf. " * 15
    assert detect_language([english, german]) == "none"
    assert detect_language([]) == "none"
