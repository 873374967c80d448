"""Token ids: prompts, truncation, special tokens, chat templates, padding."""

import pytest
from transformers import AutoTokenizer

from embedder.engine.batches import pad_batch
from embedder.engine.text import PromptTemplate, TextTokenizer
from retrieval.errors import ModelError, UsageError

PAD, BOS, EOS = 0, 1, 2
CHAT = (
    "{% for message in messages %}<bos>{{ message['role'] }}:{{ message['content'] }}<eos>"
    "{% endfor %}"
)


@pytest.fixture
def mistral(base_folder):
    return AutoTokenizer.from_pretrained(base_folder["mistral"])


@pytest.fixture
def gemma(base_folder):
    return AutoTokenizer.from_pretrained(base_folder["gemma3"])


def text(tokenizer, row):
    return str(tokenizer.decode(row))


def test_eos_ends_every_text_and_bos_starts_it_where_the_tokenizer_says_so(mistral, gemma):
    without = TextTokenizer(mistral, max_tokens=8)(["ab", ""])
    assert without[0][-1] == EOS
    assert len(without[0]) == 3
    assert without[1] == [EOS]
    with_bos = TextTokenizer(gemma, max_tokens=8)(["ab", ""])
    assert with_bos[0][0] == BOS
    assert len(with_bos[0]) == 4
    assert with_bos[1] == [BOS, EOS]


def test_only_the_text_is_cut_never_prompt_suffix_or_eos(mistral):
    rows = TextTokenizer(mistral, max_tokens=10)(["x" * 50], "q:{text}!?")
    assert text(mistral, rows[0]) == "q:xxxxx!?<eos>"


def test_texts_are_put_in_lower_case_and_what_stands_around_them_is_not(mistral):
    lowers = TextTokenizer(mistral, max_tokens=32, lowercase=True)
    frame = "Q: {text} END"
    assert text(mistral, lowers(["One İ Ä"], frame)[0]) == "Q: one i\u0307 ä END<eos>"
    keeps = TextTokenizer(mistral, max_tokens=32)
    assert text(mistral, keeps(["One"], frame)[0]) == "Q: One END<eos>"


def test_a_text_that_spells_a_special_token_stays_text(mistral):
    row = TextTokenizer(mistral, max_tokens=32)(["a<eos>b<pad>"])[0]
    assert row.count(EOS) == 1
    assert PAD not in row


def test_a_prompt_that_leaves_no_room_is_refused(mistral):
    with pytest.raises(UsageError, match="leaves none for the text"):
        TextTokenizer(mistral, max_tokens=8)(["x"], "a long prompt: ")


def test_the_chat_template_is_applied_only_when_asked_for(mistral):
    mistral.chat_template = CHAT
    plain = TextTokenizer(mistral, max_tokens=32)(["hi"])[0]
    assert text(mistral, plain) == "hi<eos>"
    framed = TextTokenizer(mistral, max_tokens=32, chat_template=True)(["hi <bos>"])[0]
    assert framed[0] == BOS
    assert framed.count(BOS) == 1
    assert text(mistral, framed) == "<bos>user:hi <bos><eos><eos>"
    assert framed[-2:] == [EOS, EOS]


def test_asking_for_a_chat_template_that_is_not_there_is_refused(mistral):
    with pytest.raises(ModelError, match="the base has none"):
        TextTokenizer(mistral, max_tokens=32, chat_template=True)


def test_a_chat_template_that_refuses_a_message_is_refused(mistral):
    mistral.chat_template = "{{ raise_exception('a system message, please') }}"
    with pytest.raises(ModelError, match="takes no single message of a user: a system message"):
        TextTokenizer(mistral, max_tokens=32, chat_template=True)


def test_a_tokenizer_without_eos_is_refused_unless_none_is_appended(mistral):
    mistral.eos_token = None
    with pytest.raises(ModelError, match="no EOS"):
        TextTokenizer(mistral, max_tokens=8)
    assert TextTokenizer(mistral, max_tokens=8, ending="none")([""]) == [[PAD]]


def test_a_megabyte_is_cut_without_being_tokenised_whole(mistral):
    row = TextTokenizer(mistral, max_tokens=16)(["ab " * 400_000])[0]
    assert len(row) == 16


def test_a_prompt_splits_at_its_placeholder():
    assert PromptTemplate.parse("before {text} after") == PromptTemplate("before ", " after")
    assert PromptTemplate.parse("query: ") == PromptTemplate("query: ", "")
    assert PromptTemplate("a", "b").inside(PromptTemplate("<", ">")) == PromptTemplate("<a", "b>")


def test_padding_goes_to_the_side_asked_for():
    ids, mask = pad_batch([[5], [6, 7]], pad_id=9, side="left")
    assert ids.tolist() == [[9, 5], [6, 7]]
    assert mask.tolist() == [[0, 1], [1, 1]]
    ids, mask = pad_batch([[5], [6, 7]], pad_id=9)
    assert ids.tolist() == [[5, 9], [6, 7]]
    assert mask.tolist() == [[1, 0], [1, 1]]
