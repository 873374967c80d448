"""Our models in mteb: what mteb computes is what ``run_benchmark`` computes.

The data leave out what the two score differently on purpose: no document has the id of a query
(mteb may drop equal ids, we also ask for equal texts), every query has a relevant document, and no
cosine occurs twice.
"""

import json

import numpy as np
import pytest

pytest.importorskip("mteb", reason="mteb is optional")

import mteb
from mteb.models import SearchProtocol

from benchmarks import BenchConfig, run_benchmark
from benchmarks.integrations.mteb import MtebEncoder, MtebSearch, load_for_mteb
from benchmarks.scoring.models import LoadedModel, load_model
from tests.benchmarks import fakes
from tests.benchmarks.local_mteb import (
    ProjectionEncoder,
    classification_task,
    retrieval_task,
    sts_task,
)
from tests.embedder import stand_ins


def mteb_scores(model, task, cache=None):
    """Return what mteb gives for the test split."""
    found = mteb.evaluate(
        model, task, cache=cache, co2_tracker=False, show_progress_bar=False, num_proc=None
    )
    return found.task_results[0].scores["test"][0]


@pytest.fixture
def our_scores(tmp_path):
    """Score a file or folder as ``millpond bench`` does; return the metrics."""

    def run(path, model="projection", load=None):
        config = BenchConfig(
            models=[model], tasks=[str(path)], out=tmp_path / "results", device="cpu"
        )
        make = load or (lambda name, device, notify: LoadedModel(ProjectionEncoder(name)))
        [result] = run_benchmark(config, load=make)
        return result.metrics

    return run


@pytest.fixture
def beir(tmp_path, library):
    """The library as a BEIR folder."""
    documents, queries, qrels = library
    judged = [(q, d, score) for q, row in qrels.items() for d, score in row.items()]
    folder = fakes.write_beir(tmp_path / "library", {}, queries, judged)
    lines = [json.dumps({"_id": key, **document}) for key, document in documents.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a random llama of two layers, width 32."""
    folder = tmp_path_factory.mktemp("home") / "tiny"
    stand_ins.write_model_folder(folder)
    return folder


both = pytest.mark.parametrize("make", [MtebEncoder, MtebSearch])


@both
@pytest.mark.parametrize("normalize", [True, False])
def test_mteb_scores_retrieval_as_our_bench_does(make, normalize, library, beir, our_scores):
    encoder = ProjectionEncoder(settings={"normalize": normalize})
    theirs = mteb_scores(make(encoder), retrieval_task(library))
    ours = our_scores(beir, load=lambda *args: LoadedModel(encoder))
    names = {
        "ndcg@10": "ndcg_at_10",
        "map": "map_at_100",
        "recall@10": "recall_at_10",
        "recall@100": "recall_at_100",
        "mrr@10": "mrr_at_10",
    }
    assert {theirs[name] for name in names.values()}.isdisjoint({0, 1})  # nothing is trivial
    assert {name: theirs[key] for name, key in names.items()} == pytest.approx(ours, abs=1e-4)


@both
def test_mteb_scores_pairs_as_our_bench_does(make, pairs, tmp_path, our_scores):
    path = fakes.write_tsv(tmp_path / "pairs.tsv", "score\tsentence1\tsentence2", *pairs)
    theirs, ours = mteb_scores(make(ProjectionEncoder()), sts_task(pairs)), our_scores(path)
    assert 0.2 < ours["spearman"] < 0.99
    for kind in ("cosine_", ""):  # of mteb's own cosine, and of ours
        assert theirs[f"{kind}spearman"] == pytest.approx(ours["spearman"], abs=1e-4)
        assert theirs[f"{kind}pearson"] == pytest.approx(ours["pearson"], abs=1e-4)


@both
def test_mteb_scores_classification_as_our_bench_does(make, labelled, tmp_path, our_scores):
    for name, rows in zip(("train", "test"), labelled, strict=True):
        fakes.write_tsv(tmp_path / "labels" / f"{name}.tsv", "label\ttext", *rows)
    theirs = mteb_scores(make(ProjectionEncoder()), classification_task(labelled))
    ours = our_scores(tmp_path / "labels")
    assert 0.4 < ours["accuracy"] < 0.99
    assert theirs["accuracy"] == pytest.approx(ours["accuracy"], abs=1e-4)
    assert theirs["f1"] == pytest.approx(ours["macro_f1"], abs=1e-4)


@pytest.mark.parametrize("backend", [None, "faiss"])
def test_a_named_model_scores_in_mteb_as_in_our_bench(
    backend, tiny, library, beir, pairs, tmp_path, our_scores
):
    name = f"{tiny}:mean+causal,query_prompt=ask: ,max_tokens=48"
    model = load_for_mteb(name, backend=backend, device="cpu")
    assert isinstance(model, SearchProtocol) == (backend is not None)
    path = fakes.write_tsv(tmp_path / "pairs.tsv", "score\tsentence1\tsentence2", *pairs)
    ours = our_scores(path, name, load_model)
    assert mteb_scores(model, sts_task(pairs))["cosine_spearman"] == pytest.approx(
        ours["spearman"], abs=1e-4
    )
    theirs = mteb_scores(model, retrieval_task(library))
    assert theirs["ndcg_at_10"] == pytest.approx(
        our_scores(beir, name, load_model)["ndcg@10"], abs=1e-4
    )


def test_what_mteb_is_told_of_a_named_model_is_what_is_known_of_it(tiny):
    model = load_for_mteb(f"{tiny}:mean+causal,query_prompt=ask: ,max_tokens=48", device="cpu")
    meta = model.mteb_model_meta
    assert meta.name == "millpond/tiny-mean+causal-query_prompt=ask-max_tokens=48"
    assert meta.revision == model.encoder.fingerprint.digest[:12]
    assert (meta.embed_dim, meta.max_tokens, meta.use_instructions) == (32, 48, True)
    assert meta.n_parameters == sum(weight.numel() for weight in model.encoder.parameters())
    assert meta.framework == ["PyTorch", "Transformers"]
    unknown = (meta.license, meta.open_weights, meta.training_datasets, meta.adapted_from)
    assert unknown == (None, None, None, None)


def test_a_kept_result_is_read_back_for_the_same_kind_of_index_only(library, tmp_path):
    cache = mteb.ResultCache(tmp_path / "mteb")
    task = retrieval_task(library)
    first = mteb_scores(MtebSearch(ProjectionEncoder()), task, cache)["ndcg_at_10"]
    again = MtebSearch(ProjectionEncoder())
    assert mteb_scores(again, task, cache)["ndcg_at_10"] == first
    assert again.encoder.calls == []
    for other in (
        MtebSearch(ProjectionEncoder(), factory="HNSW8"),
        MtebEncoder(ProjectionEncoder()),
        MtebSearch(ProjectionEncoder("another")),
    ):
        mteb_scores(other, task, cache)
        assert other.encoder.calls != []


def test_candidates_are_ranked_anew_alike_by_both(library):
    documents, queries, _ = library
    random = np.random.default_rng(4)
    candidates = {
        key: [str(doc_id) for doc_id in random.choice(list(documents), 12, replace=False)]
        for key in queries
    }
    task = retrieval_task(library, "Reranking", candidates)
    search = MtebSearch(ProjectionEncoder())
    scores = mteb_scores(search, task)
    assert scores["ndcg_at_10"] == mteb_scores(MtebEncoder(ProjectionEncoder()), task)["ndcg_at_10"]
    # Each document once and each query once: no index was built beside.
    assert sum(len(texts) for _, texts in search.encoder.calls) == len(documents) + len(queries)
