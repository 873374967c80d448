import json
import os

import pytest

from benchmarks.mining.mining import MiningConfig
from tests.embedder import stand_ins

WINDOW = ("--from-rank", 2, "--to-rank", 4)
PIES = (
    {"query": "red apple pie", "positive": "red apple pie warm"},
    {"query": "apple cake", "positive": "red apple cake cold", "negatives": ["stone soup"]},
    {"query": "a berry", "positive": "red berry cake cold"},
    {"query": "what is green", "positive": "green pear tart warm"},
)
"""Four candidates of four words each, so BM25 is a multiple of the sum of idf over shared words.

With N = 4, idf is ln(1 + (4 - df + 0.5) / (df + 0.5)): red, in 3, 0.357; apple, cake, cold and
warm, in 2, 0.693; pie, berry, green, pear and tart, in 1, 1.204.

    red apple pie: itself 2.254; red apple cake 1.050 (0.47 of it); red berry cake 0.357 (0.16)
    apple cake: itself 1.386; red apple pie and red berry cake 0.693 (0.5 of it)
    a berry, what is green: only their positives share a word
"""


@pytest.fixture
def pairs(write_jsonl):
    return write_jsonl("pairs.jsonl", *PIES)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "mined.jsonl"


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_bm25_adds_what_shares_words_and_scores_less(millpond, pairs, out):
    result = millpond("mine", pairs, "--out", out, *WINDOW, "--max-relative-score", 0.6)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    mined = read(out)
    assert [(m["query"], m["positive"]) for m in mined] == [
        (p["query"], p["positive"]) for p in PIES
    ]
    assert [m["negatives"] for m in mined] == [
        ["red apple cake cold", "red berry cake cold"],
        ["stone soup", "red apple pie warm", "red berry cake cold"],
        [],
        [],
    ]
    lines = result.stderr.splitlines()
    assert lines[0] == "Indexing 4 candidates by BM25."
    assert lines[1].startswith("Mined 4 negatives for 4 pairs in ")
    assert lines[2:5] == [
        "Negatives per pair: 2: 2 pairs; 0: 2 pairs.",
        "Mean rank 2.5 of 4 candidates.",
        "Left out of the windows: 0 positives of the query, 0 equal to the query, "
        "0 present already, 0 scored too near the positive.",
    ]
    assert lines[5].startswith("Warning: 2 pairs got no negative.")
    assert lines[6] == f"Next: name {out} as data.path in the config of 'millpond train'."


def test_json_prints_the_summary_as_one_line(millpond, pairs, out):
    # Below 0.48 of the positive: of apple cake's two, both go (0.5).
    args = ("--max-relative-score", 0.48, "--replace", "--json")
    result = millpond("mine", pairs, "--out", out, *WINDOW, *args)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {
        "pairs": 4,
        "candidates": 4,
        "negatives": 2,
        "pairs_by_negatives": {"0": 3, "2": 1},
        "pairs_without": 3,
        "mean_rank": 2.5,
        "dropped": {"positive": 0, "query": 0, "present": 0, "score": 2},
    }
    assert read(out)[1]["negatives"] == []  # --replace


def test_training_accepts_what_was_mined(millpond, pairs, out, tmp_path):
    assert millpond("mine", pairs, "--out", out, *WINDOW).exit_code == 0
    stand_ins.write_model_folder(tmp_path / "tiny")
    (tmp_path / "train.toml").write_text(
        'batch_pairs = 2\nsteps = 2\n[model]\nbase = "./tiny"\npooling = "mean"\n'
        f'attention = "causal"\n[[data]]\npath = "{out.name}"\n'
    )
    result = millpond("train", tmp_path / "train.toml", "--check")
    assert result.exit_code == 0, result.stderr
    assert f"{out}: 4 pairs, 5 negatives, weight 1" in result.stderr


def test_a_beir_folder_gives_its_training_pairs(millpond, tmp_path, out):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    for name, rows, key in (("corpus", PIES, "positive"), ("queries", PIES, "query")):
        lines = [json.dumps({"_id": str(i), "text": row[key]}) for i, row in enumerate(rows)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n1\t1\t1\n0\t0\t1\n")
    whole = ("--corpus", folder)
    result = millpond("mine", folder, "--out", out, *WINDOW, *whole)
    assert result.exit_code == 0, result.stderr
    assert [(m["query"], m["negatives"]) for m in read(out)] == [
        ("apple cake", ["red apple pie warm", "red berry cake cold"]),
        ("red apple pie", ["red apple cake cold", "red berry cake cold"]),
    ]
    result = millpond("mine", folder, "--out", folder / "corpus.jsonl", *WINDOW, *whole)
    assert result.exit_code == 2
    assert "this is the input" in result.stderr


def test_negatives_come_from_the_corpus_where_one_is_named(millpond, pairs, write_jsonl, out):
    texts = ("apple tree bark", "pie crust", "red apple pie warm")
    corpus = write_jsonl(
        "corpus.jsonl", *({"_id": str(i), "text": text} for i, text in enumerate(texts))
    )
    args = ("--corpus", corpus, "--from-rank", 1, "--to-rank", 3)
    result = millpond("mine", pairs, "--out", out, *args, "--negatives", 3, "--replace")
    assert result.exit_code == 0, result.stderr
    # No positive but the first is in the corpus; "apple" is all that "apple cake" shares with it.
    assert [set(m["negatives"]) for m in read(out)] == [
        {"apple tree bark", "pie crust"},
        {"apple tree bark", "red apple pie warm"},
        set(),
        set(),
    ]


def test_a_model_ranks_through_a_temporary_index(
    millpond, pairs, out, tmp_path, monkeypatch, loaded
):
    import tempfile

    from cli.commands.index import load_encoder as load_fake

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    speeds = []
    monkeypatch.setattr(
        "cli.commands.mine.load_encoder",
        lambda *given, **more: speeds.append(given[2]) or load_fake(*given, **more),
    )
    args = ("--by", "my-model", "--device", "cpu", "--speed", "fast", "--max-relative-score", 0.8)
    result = millpond("mine", pairs, "--out", out, *WINDOW, *args)
    assert result.exit_code == 0, result.stderr
    assert (loaded, speeds) == (["my-model"], ["fast"])
    # Cosines with "red apple pie", counted words of 3 and 4: itself 3 / sqrt(12) = 0.866; red
    # apple cake 2 / sqrt(12) = 0.577, which is 0.67 of it; red berry cake 0.289.
    assert read(out)[0]["negatives"][:2] == ["red apple cake cold", "red berry cake cold"]
    assert "my-model is untrained" in result.stderr
    assert list(tmp_path.glob("millpond-mine-*")) == []


def test_a_tiny_llama_mines_what_training_accepts(
    millpond, pairs, out, tmp_path, monkeypatch, real_models
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    stand_ins.write_model_folder(tmp_path / "tiny")
    model = f"{tmp_path / 'tiny'}:mean+causal"
    args = ("--by", model, "--device", "cpu", "--max-relative-score", "inf", "--from-rank", 1)
    result = millpond("mine", pairs, "--out", out, "--to-rank", 4, *args)
    assert result.exit_code == 0, result.stderr
    # The window holds all candidates and no limit applies: the three other positives, each.
    positives = {pie["positive"] for pie in PIES}
    for mined, pie in zip(read(out), PIES, strict=True):
        kept = pie.get("negatives", [])
        assert mined["negatives"][: len(kept)] == kept
        assert set(mined["negatives"][len(kept) :]) == positives - {pie["positive"]}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--to-rank", 5), "There are 4 distinct candidates, and the window goes to rank 5."),
        (("--from-rank", 4, "--to-rank", 4), "to_rank is 4 and from_rank 4; to_rank must be more."),
        (("--pick", "best"), "pick is 'best'; expected top or random."),
        (("--corpus", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--by", "bm52"), "Did you mean 'bm25'?"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_in_one_line(
    millpond, pairs, out, args, message, real_models
):
    result = millpond("mine", pairs, "--out", out, *WINDOW, *args)
    assert result.exit_code == 2
    [error] = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert message in error
    assert not out.exists()


def test_one_candidate_is_too_few_for_any_window(millpond, write_jsonl, out):
    pairs = write_jsonl("one.jsonl", {"query": "q", "positive": "p", "negatives": ["n"]})
    result = millpond("mine", pairs, "--out", out)
    assert result.exit_code == 2
    words = "There is 1 distinct candidate, and the window goes to rank 100. Name a larger --corpus"
    assert words in " ".join(result.stderr.split())


def test_bad_pairs_are_named_by_file_and_line(millpond, write_jsonl, out, tmp_path):
    bad = write_jsonl("bad.jsonl", PIES[0], {"query": "q"})
    empty = write_jsonl("empty.jsonl")
    for path, message in (
        (bad, f"Error: {bad}:2: the pair has no 'positive'"),
        (empty, f"Error: {empty}: it holds no pair"),
        (tmp_path / "none.jsonl", "none.jsonl: there is no such file or folder."),
    ):
        result = millpond("mine", path, "--out", out)
        assert result.exit_code == 2
        assert message in result.stderr
    assert not out.exists()


def test_the_input_is_never_overwritten(millpond, pairs, write_jsonl, tmp_path):
    before = pairs.read_bytes()
    linked = tmp_path / "linked.jsonl"
    os.link(pairs, linked)
    corpus = write_jsonl("corpus.jsonl", {"_id": "1", "text": "pie"})
    for out, corpus_args in ((pairs, ()), (linked, ()), (corpus, ("--corpus", corpus))):
        result = millpond("mine", pairs, "--out", out, *WINDOW, *corpus_args)
        assert result.exit_code == 2
        assert f"{out}: this is the input. Name another file with --out." in result.stderr
    assert pairs.read_bytes() == before


def test_the_result_has_a_name_that_training_reads(millpond, pairs, tmp_path):
    result = millpond("mine", pairs, "--out", tmp_path / "mined.json", *WINDOW)
    assert result.exit_code == 2
    assert "expected a name that ends in .jsonl" in result.stderr


def test_an_interruption_leaves_what_was_there(millpond, write_jsonl, out, tmp_path, monkeypatch):
    from benchmarks.mining.candidates import BM25Ranker

    pairs = write_jsonl("pairs.jsonl", *(PIES * 100))  # two batches
    out.write_text("before")
    rank, calls = BM25Ranker.rank, []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return rank(self, *args)

    monkeypatch.setattr(BM25Ranker, "rank", interrupted)
    result = millpond("mine", pairs, "--out", out, *WINDOW)
    assert (result.exit_code, len(calls)) == (130, 2)
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mined.jsonl", "pairs.jsonl"]


def test_defaults_that_help_shows_are_those_of_the_library(millpond):
    shown = " ".join(millpond("mine", "--help").stdout.partition("Options:")[2].split())
    config = MiningConfig()
    for name in ("negatives", "from_rank", "to_rank", "max_relative_score", "pick", "seed"):
        option = shown[shown.index(f"--{name.replace('_', '-')} ") :]
        assert option[: option.index("]")].endswith(f"[default: {getattr(config, name)}")


def test_what_is_bad_stops_or_is_left_out_and_counted(millpond, write_jsonl, out):
    pairs = write_jsonl("pairs.jsonl", *PIES, {"query": "nothing", "positive": ""})
    corpus = write_jsonl(
        "corpus.jsonl",
        *({"_id": str(number), "text": pie["positive"]} for number, pie in enumerate(PIES)),
        {"_id": "empty", "text": " "},
        {"_id": "none"},
    )
    args = ("--out", out, *WINDOW, "--corpus", corpus)
    result = millpond("mine", pairs, *args)
    assert result.exit_code == 2
    assert f"Error: {pairs}:5: 'positive' is empty; expected text. Fix it, or pass --skip-bad" in (
        result.stderr
    )
    result = millpond("mine", pairs, *args, "--skip-bad")
    assert result.exit_code == 0, result.stderr
    assert f"Warning: 1 bad record was left out of {pairs}. The first: {pairs}:5" in result.stderr
    assert "Warning: 1 bad record was skipped. The first: " in result.stderr
    assert f"1 empty document of {corpus} cannot be a negative." in result.stderr
    assert len(read(out)) == len(PIES)
