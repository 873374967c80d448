"""What mteb asks of a model: prompts, batches, indexes, descriptions, and what is refused."""

import sys
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("mteb", reason="mteb is optional")

from datasets import Dataset
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import EncoderProtocol, SearchProtocol
from mteb.types import PromptType

from benchmarks.integrations.mteb import MtebEncoder, MtebSearch, load_for_mteb
from indexes import Index, read_manifest
from retrieval.errors import (
    MissingDependencyError,
    UnknownNameError,
    UsageError,
    VectorError,
)
from tests.benchmarks.fakes import SidedEncoder

WORDS = [f"word{number}" for number in range(8)]
DIMENSION = len(WORDS)


class CountEncoder(SidedEncoder):
    """Counts "word0" to "word7", and adds 1 so that no vector is zero; notes every call."""

    dimension = DIMENSION

    def __init__(self, model="counts", settings=None):
        super().__init__(model, settings)

    def _encode(self, texts, side):
        self.calls.append((side, list(texts)))
        counts = [[1 + text.split().count(word) for word in WORDS] for text in texts]
        vectors = np.array(counts, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class NanEncoder(CountEncoder):
    def _encode(self, texts, side):
        return super()._encode(texts, side) * np.float32(np.nan)


TEXT_TASK = TaskMetadata(
    name="LocalText",
    description="Made in a test.",
    dataset={"path": "millpond/nowhere", "revision": "none"},
    type="Retrieval",
    category="t2t",
    eval_langs=["eng-Latn"],
    main_score="ndcg_at_10",
)
PLACE = {"task_metadata": TEXT_TASK, "hf_split": "test", "hf_subset": "default"}


def test_mteb_is_told_none_where_nothing_is_known():
    meta = MtebEncoder(CountEncoder("a model")).mteb_model_meta
    assert (meta.name, meta.embed_dim) == ("millpond/a-model", DIMENSION)
    assert (meta.n_parameters, meta.max_tokens, meta.use_instructions) == (None, None, None)


def test_a_model_without_prompts_uses_no_instructions():
    settings = {"query_prompt": "", "document_prompt": ""}
    model = MtebEncoder(CountEncoder("a", settings))
    assert model.mteb_model_meta.use_instructions is False


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("smollm2-135m:mean+causal", "smollm2-135m-mean+causal"),
        ("Qwen/Qwen3-0.6B:model1", "Qwen-Qwen3-0.6B-model1"),
        ("~/work/my model,max_tokens=64", "my-model-max_tokens=64"),
        ("/secret/place/tiny.gguf:eos+causal", "tiny.gguf-eos+causal"),
        ("st:/secret/place/bert", "st-bert"),
        ("/", "model"),
        ("tiny,query_prompt=" + "a" * 300, "tiny-query_prompt=" + "a" * 82),  # 100 in all
    ],
)
def test_names_become_file_names_that_show_no_path(typed, name):
    assert MtebEncoder(CountEncoder(typed)).mteb_model_meta.name == f"millpond/{name}"


def test_both_follow_mtebs_protocols():
    encoder, search = MtebEncoder(CountEncoder()), MtebSearch(CountEncoder())
    assert isinstance(encoder, EncoderProtocol) and not isinstance(encoder, SearchProtocol)
    assert isinstance(search, EncoderProtocol) and isinstance(search, SearchProtocol)


@pytest.mark.parametrize(
    ("prompt_type", "side"), [(None, "query"), ("query", "query"), ("document", "document")]
)
def test_documents_take_the_document_prompt_and_all_else_that_of_queries(prompt_type, side):
    encoder = CountEncoder()
    kind = prompt_type and PromptType(prompt_type)
    MtebEncoder(encoder).encode([{"text": ["a", "b"]}], prompt_type=kind, **PLACE)
    assert encoder.calls == [(side, ["a", "b"])]


def test_title_and_text_are_joined_as_our_documents_are():
    encoder = CountEncoder()
    batch = {"title": ["Mills", ""], "body": ["grind ", " corn "], "text": ["Mills grind", "corn"]}
    MtebEncoder(encoder).encode([batch], prompt_type="document", **PLACE)
    # Document.content strips where there is a title, and leaves a text without one as it is.
    assert encoder.calls == [("document", ["Mills grind", " corn "])]


def test_small_batches_reach_the_encoder_together_and_keep_their_order():
    encoder = CountEncoder()
    texts = [f"word{number % 8}" for number in range(1030)]
    batches = [{"text": texts[start : start + 32]} for start in range(0, len(texts), 32)]
    vectors = MtebEncoder(encoder).encode(batches, **PLACE)
    assert [len(chunk) for _, chunk in encoder.calls] == [1024, 6]
    assert np.array_equal(vectors[[0, 1029]], encoder.encode_queries(["word0", "word5"]))
    assert MtebEncoder(encoder).encode([], **PLACE).shape == (0, DIMENSION)


# (3, 4) has length 5: cosines 3/5 with x and 4/5 with y, inner products 3 * 10 and 4 * 2.
@pytest.mark.parametrize(
    ("normalize", "name", "scores"),
    [(True, "cosine", [[0.6, 0.8], [1, 0]]), (False, "dot", [[30, 8], [10, 0]])],
)
def test_the_similarity_is_the_one_that_our_indexes_rank_by(normalize, name, scores):
    model = MtebEncoder(CountEncoder(settings={"normalize": normalize}))
    first = np.array([[3, 4], [1, 0]], dtype=np.float32)
    second = np.array([[10, 0], [0, 2]], dtype=np.float32)
    assert model.mteb_model_meta.similarity_fn_name == name
    assert model.similarity(first, second).numpy() == pytest.approx(np.array(scores))
    diagonal = [scores[0][0], scores[1][1]]
    assert model.similarity_pairwise(first, second).tolist() == pytest.approx(diagonal)


def index(model, corpus):
    model.index(corpus, encode_kwargs={}, **PLACE)


def ask(model, queries, top_k=3):
    return model.search(
        Dataset.from_list(queries), top_k=top_k, encode_kwargs={}, num_proc=None, **PLACE
    )


def test_the_corpus_is_read_no_further_than_what_is_encoded():
    read_at = []

    class Watching(CountEncoder):
        def _encode(self, texts, side):
            read_at.append(read)
            return super()._encode(texts, side)

    read = 0

    def corpus():
        nonlocal read
        for number in range(2100):
            read += 1
            yield {"id": str(number), "title": None, "text": WORDS[number % 8]}

    index(MtebSearch(Watching()), corpus())
    assert read_at[0] == 1024
    assert max(later - earlier for earlier, later in pairwise(read_at)) <= 1024


def test_an_instruction_is_read_after_its_query_as_mteb_does():
    model = MtebSearch(CountEncoder())
    index(model, [{"id": "a", "text": "word1 word2"}, {"id": "b", "text": "word3"}])
    model.encoder.calls.clear()
    found = ask(model, [{"id": "q", "text": "word1", "instruction": "word2"}])
    assert model.encoder.calls == [("query", ["word1 word2"])]
    assert list(found) == ["q"]
    assert max(found["q"], key=found["q"].get) == "a"


def test_a_temporary_index_goes_with_the_next_corpus_and_with_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = MtebSearch(CountEncoder())
    index(model, [{"id": "a", "text": "word1"}])
    [first] = tmp_path.glob("millpond-mteb-*")
    index(model, [{"id": "b", "text": "word1"}])
    [second] = tmp_path.glob("millpond-mteb-*")
    assert first != second
    assert list(ask(model, [{"id": "q", "text": "word1"}])["q"]) == ["b"]
    del model
    assert list(tmp_path.glob("millpond-mteb-*")) == []


def test_an_index_in_a_folder_of_ones_own_is_kept(tmp_path):
    model = MtebSearch(CountEncoder(), factory="HNSW8", folder=tmp_path / "kept")
    index(model, [{"id": "a", "text": "word1"}, {"id": "b", "text": "word2"}])
    folder = tmp_path / "kept" / "LocalText-default-test"
    assert read_manifest(folder).factory == "HNSW8"
    index(model, [{"id": "a", "text": "word1"}])  # written anew
    del model
    assert len(Index.open(folder)) == 1


def encode(model, batches, **settings):
    return model.encode(batches, **PLACE, **settings)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (
            lambda: encode(MtebEncoder(CountEncoder()), [], precision="int8"),
            UsageError,
            "precision is 'int8'; expected 'float32'.",
        ),
        (
            lambda: encode(MtebEncoder(CountEncoder()), [{"image": [1]}]),
            UsageError,
            "LocalText gives image and no text; expected a text task.",
        ),
        (
            lambda: encode(MtebEncoder(NanEncoder()), [{"text": ["a"]}]),
            VectorError,
            "LocalText, texts 0 to 0: row 0 holds NaN or infinity.",
        ),
        (
            lambda: ask(MtebSearch(CountEncoder()), [{"id": "q", "text": "a"}]),
            UsageError,
            "There is no corpus to search. Call index(corpus, ...) first.",
        ),
        (
            lambda: index(MtebSearch(CountEncoder()), [{"id": "a", "text": None}]),
            UsageError,
            "LocalText: document 'a' has NoneType as its text; expected a string.",
        ),
        (
            lambda: MtebSearch(CountEncoder(), "lucene"),
            UnknownNameError,
            "'lucene'",
        ),
        (
            lambda: load_for_mteb("nowhere", backend="lucene"),
            UnknownNameError,
            "'lucene'",
        ),
        (lambda: load_for_mteb("bm25"), UsageError, "bm25 gives no vectors"),
        (lambda: load_for_mteb("smollm9"), UnknownNameError, "'smollm9'"),
    ],
)
def test_what_cannot_be_done_is_refused(act, error, message):
    with pytest.raises(error) as caught:
        act()
    assert message in str(caught.value)


@pytest.mark.parametrize("make", [lambda: load_for_mteb("tiny"), lambda: MtebEncoder(None)])
def test_without_mteb_the_message_says_what_to_install(make, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "mteb"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r'Type: pip install "millpond\[mteb\]"'):
        make()
