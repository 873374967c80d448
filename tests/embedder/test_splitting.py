"""Long texts as passages: nothing lost, nothing too long, cut where a reader would."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from embedder import Embedder, VariantSpec
from embedder.splitting import PassageSplitter, check_passages, make_splitter, tokens_beside
from retrieval.errors import UsageError


def of_backend(backend):
    return SimpleNamespace(backend_tokenizer=backend)


def word_tokenizer():
    """One token a word; blanks belong to no token."""
    backend = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return of_backend(backend)


def byte_tokenizer(*, trim=False, prefix=False):
    """One token a byte, so that characters beyond ASCII are several; "th" and " the" are one."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, "th", "the", "Ġthe"]
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    backend = Tokenizer(models.BPE({t: n for n, t in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, trim_offsets=trim)
    return of_backend(backend)


WORDS, BYTES = word_tokenizer(), byte_tokenizer()
TOKENIZERS = {
    "words": WORDS,
    "bytes": BYTES,
    "prefixed": byte_tokenizer(prefix=True),  # adds a blank in front, one token more
}


def whole(splitter, text):
    """The passages without what they repeat, in one piece."""
    spans, before, parts = splitter.spans(text), 0, []
    for start, stop in spans:
        assert start <= before < stop or (start, stop) == (0, 0) == (0, len(text))
        parts.append(text[before:stop])
        before = stop
    return "".join(parts)


TEXTS = st.text(st.sampled_from("abthe .\n!é水👍\u0301\u200d🏽"), max_size=120) | st.text(
    max_size=60
)


@settings(deadline=None)
@given(
    text=TEXTS,
    name=st.sampled_from(sorted(TOKENIZERS)),
    tokens=st.integers(1, 30),
    share=st.integers(0, 10),
)
def test_the_passages_of_any_text_are_the_text_and_none_is_too_long(text, name, tokens, share):
    splitter = PassageSplitter(TOKENIZERS[name], tokens, tokens * share // 20)
    passages = splitter(text)
    assert whole(splitter, text) == text
    assert [text[start:stop] for start, stop in splitter.spans(text)] == passages
    assert all(splitter.count(p) <= tokens or len(p) == 1 for p in passages)
    if share == 0:
        assert "".join(passages) == text
    if splitter.count(text) <= tokens:
        assert passages == [text]


@settings(deadline=None)
@given(text=st.text(st.sampled_from("ab .\n"), max_size=300), tokens=st.integers(2, 40))
def test_neighbours_share_at_most_the_overlap(text, tokens):
    splitter = PassageSplitter(BYTES, tokens, tokens // 2)
    spans = splitter.spans(text)
    for (_, stop), (start, _) in pairwise(spans):
        assert splitter.count(text[start:stop]) <= tokens // 2


def test_words_are_cut_by_four_and_share_one():
    # From 1, the passages start 4 - 1 = 3 words after each other; blanks lead.
    splitter = PassageSplitter(WORDS, 4, 1)
    text = " ".join(str(n) for n in range(1, 11))
    assert splitter(text) == ["1 2 3 4", " 4 5 6 7", " 7 8 9 10"]
    assert PassageSplitter(WORDS, 4)(text) == ["1 2 3 4", " 5 6 7 8", " 9 10"]


@pytest.mark.parametrize("text", ["", "short", " \n "])
def test_a_short_or_empty_text_is_one_passage(text):
    assert PassageSplitter(BYTES, 8, 2)(text) == [text]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        # 20 bytes a passage: its last half is what ends at 11 to 20, its last third at 15 to 20,
        # its last fifth at 17 to 20.
        ("aaaaaaaaaaa\n\nbb. cc dd", "aaaaaaaaaaa"),  # the paragraph, not the sentence
        ("aaaaaaaaa\n\nbbbbbb. cc dd", "aaaaaaaaa\n\nbbbbbb."),  # the paragraph ends too early
        ("aaaaaaaaaaa\n \t\r\nbb. cc dd", "aaaaaaaaaaa"),  # blanks on an empty line
        ("aaaaaaaaaaaa b. ccc dd ee", "aaaaaaaaaaaa b."),
        ("aaaaaaaaaaa b. cccc dd ee", "aaaaaaaaaaa b. cccc"),  # the sentence ends too early
        ("if a:\n    return b\nelse", "if a:\n    return b"),
        ("aaaaaaaaaaaaaaa bb. cc dd", "aaaaaaaaaaaaaaa bb."),  # the sentence, not the blank
        ("aaaaaaaaaaaaaaaa bbb cc dd", "aaaaaaaaaaaaaaaa bbb"),  # the last blank
        ("aaaaaaaaaaaa bbbbbbbbbbbb", "aaaaaaaaaaaa bbbbbbb"),  # the blank comes too early
        ("aaaaaaaaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaa"),
        ("aaaaaaaaaaaaaaaaa\nb c d e", "aaaaaaaaaaaaaaaaa"),  # a line ends as a sentence does
        ("aaaaaaaaaaaaa bb.cc dd ee", "aaaaaaaaaaaaa bb.cc"),  # no sentence ends within a word
        ('aaaaaaaaaaaaa "b." cc dd', 'aaaaaaaaaaaaa "b."'),
        ("水水水水水。水水", "水水水水水。"),  # 3 bytes each: 6 make 18
    ],
)
def test_a_passage_ends_at_a_paragraph_else_at_a_sentence_else_at_a_blank(text, first):
    assert PassageSplitter(BYTES, 20)(text)[0] == first


def test_thai_ends_at_the_blank_between_its_phrases():
    # 3 bytes each: 17 letters, the blank and 2 more are 58 bytes, and the last fifth begins at 16.
    phrase = "ไทยไทยไทยไทยไทยไท"
    assert PassageSplitter(BYTES, 60)(f"{phrase} ไทยไทย") == [phrase, " ไทยไทย"]


def test_no_character_is_divided():
    # é of two code points is 1 + 2 bytes, a thumb with its skin 4 + 4.
    assert PassageSplitter(BYTES, 5)("e\u0301" * 3) == ["e\u0301"] * 3
    assert PassageSplitter(BYTES, 12)("👍🏽👍🏽") == ["👍🏽", "👍🏽"]
    assert PassageSplitter(BYTES, 3)("👍a") == ["👍", "a"]  # 4 tokens, and nothing to cut


def test_where_blanks_belong_to_no_token_they_are_kept():
    splitter = PassageSplitter(byte_tokenizer(trim=True), 6, 2)
    text = "the the  the\tthe the "
    assert whole(splitter, text) == text
    assert all(splitter.count(p) <= 6 for p in splitter(text))


def test_a_text_is_tokenised_a_piece_at_a_time(monkeypatch):
    splitter = PassageSplitter(BYTES, 10, 2)
    sizes = []
    offsets = splitter._offsets
    monkeypatch.setattr(splitter, "_offsets", lambda text: sizes.append(len(text)) or offsets(text))
    splitter("abcdefghi " * 1000)
    assert max(sizes) == 80  # 8 characters a token


@pytest.mark.parametrize(
    ("tokens", "overlap", "words"),
    [(0, 0, "1 or more"), (8, 5, "expected 0 to 4"), (8, -1, "expected 0 to 4")],
)
def test_numbers_that_cannot_be_are_refused(tokens, overlap, words):
    with pytest.raises(UsageError, match=words):
        check_passages(tokens, overlap)
    with pytest.raises(UsageError, match=words):
        PassageSplitter(BYTES, tokens, overlap)


@pytest.fixture
def model(base_folder):
    spec = VariantSpec(
        base=str(base_folder["mistral"]),
        pooling="mean",
        attention="causal",
        max_tokens=32,
        document_prompt="doc: ",
    )
    return Embedder.from_spec(spec, device="cpu")


def test_a_model_cuts_by_its_own_tokens(model):
    assert make_splitter(model, 10, 0)("0123456789" * 2) == ["0123456789"] * 2
    with pytest.raises(UsageError, match=r"Passages of 33 tokens .* reads 32 .* Type 2\d or less"):
        make_splitter(model, 33, 0)


def test_prompt_title_and_eos_take_their_share(model):
    eos = tokens_beside(model) - len("doc: ")
    assert eos in (0, 1)
    assert tokens_beside(model, "title") - tokens_beside(model) == len("title ")
