import json

import pytest


@pytest.fixture
def calls(monkeypatch):
    """Replace the library function; holds what it was called with."""
    found = []
    monkeypatch.setattr(
        "embedder.models.whiten.whiten_model",
        lambda *args, **settings: found.append((args, settings)),
    )
    return found


@pytest.fixture
def pairs(write_jsonl):
    rows = ({"query": f"query {i}", "positive": f"positive {i}"} for i in range(50))
    return write_jsonl("pairs.jsonl", *rows)


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"line {i}\n\n" for i in range(100)))
    return path


def test_texts_are_drawn_evenly_from_all_sources(millpond, calls, pairs, lines, tmp_path):
    out = tmp_path / "out"
    result = millpond(
        "whiten",
        "some-model",
        "--corpus",
        lines,
        "--pairs",
        pairs,
        "--texts",
        "40",
        "--mean-share",
        "0.5",
        "--out",
        out,
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    [((model, queries, documents, folder), settings)] = calls
    assert (model, folder) == ("some-model", out)
    assert len(queries) == 10
    assert len([text for text in documents if text.startswith("line")]) == 20
    answers = [text for text in documents if text.startswith("positive")]
    assert [text.split()[1] for text in queries] == [text.split()[1] for text in answers]
    assert (settings["power"], settings["mean_share"]) == (0.25, 0.5)
    sources = settings["record"]["sources"]
    assert [(source["path"], source["texts"]) for source in sources] == [
        (str(lines), 20),
        ("pairs.jsonl", 20),
    ]
    assert f"Wrote the model {out}, whitened on 40 texts." in result.stderr
    assert f"--model {out}" in result.stderr.splitlines()[-1]


def test_the_draw_hangs_on_the_seed_alone(millpond, calls, lines, tmp_path):
    for seed in ("1", "1", "2"):
        args = ("--corpus", lines, "--texts", "30", "--seed", seed, "--out", tmp_path / "out")
        assert millpond("whiten", "some-model", *args).exit_code == 0
    first, same, other = (documents for (_, _, documents, _), _ in calls)
    assert first == same != other
    assert len(set(first)) == 30
    assert not any(text.strip() == "" for text in first)


def test_a_small_source_gives_all_it_has(millpond, calls, lines, tmp_path):
    assert millpond("whiten", "m", "--corpus", lines, "--out", tmp_path / "out").exit_code == 0
    [((_, queries, documents, _), _)] = calls
    assert queries == []
    assert documents == [f"line {i}" for i in range(100)]


def test_no_texts_at_all_is_said_with_what_to_type(millpond, calls, tmp_path):
    result = millpond("whiten", "some-model", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "nothing to fit on. Add --corpus CORPUS or --pairs FILE." in result.stderr
    assert calls == []


def test_bad_texts_are_named_by_file_and_line(millpond, calls, tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"query": "a"}) + "\n")
    args = ("whiten", "m", "--pairs", tmp_path / "pairs.jsonl", "--out", tmp_path / "out")
    result = millpond(*args)
    assert result.exit_code == 2
    assert "pairs.jsonl:1: the pair has no 'positive'" in result.stderr
    assert "there is no such file" in millpond("whiten", "m", "--pairs", "x", "--out", "o").stderr
    assert calls == []


def test_an_unknown_model_is_one_line_and_exit_2(millpond, lines, tmp_path):
    result = millpond("whiten", "no-such:mean+causal", "--corpus", lines, "--out", tmp_path / "o")
    assert result.exit_code == 2
    assert result.stderr.count("Error:") == 1
    assert not (tmp_path / "o").exists()


def test_bad_texts_and_pairs_are_left_out_when_asked(millpond, calls, write_jsonl, lines, tmp_path):
    bad = write_jsonl("bad.jsonl", {"query": "q", "positive": "p"}, {"query": "q"})
    lines.write_bytes(lines.read_bytes() + b"\xff\n")
    args = ("whiten", "some-model", "--pairs", bad, "--corpus", lines, "--out", tmp_path / "out")
    assert "--skip-bad" in millpond(*args).stderr
    result = millpond(*args, "--skip-bad")
    assert result.exit_code == 0, result.stderr
    assert f"Warning: 1 bad record was left out of {bad}." in result.stderr
    assert "Warning: 1 bad record was skipped." in result.stderr
    assert len(calls) == 1
