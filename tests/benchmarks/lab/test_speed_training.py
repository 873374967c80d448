"""The speed script for training: what it times, and what it prints."""

from benchmarks.lab.speed.training import NO_DROPOUT, TORCH, WORDS, main


def test_it_prints_a_row_for_each_dropout(tiny_base, tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        "".join(f'{{"_id": "{n}", "title": "t {n}", "text": "pond {n}"}}\n' for n in range(6))
    )
    model = f"{tiny_base}:model1,max_tokens=16"
    code = main([str(corpus), "--model", model, "--pairs", "5", "--rounds", "2"])
    printed, progress = capsys.readouterr()
    assert code == 0
    assert "5 pairs" in printed and "2 interleaved rounds" in printed
    for name in (NO_DROPOUT, TORCH, WORDS):
        assert f"| {name}" in printed
        assert f"Round 2: {name} took" in progress


def test_a_corpus_that_is_not_there_is_said(tiny_base, tmp_path, capsys):
    code = main([str(tmp_path / "nowhere"), "--model", f"{tiny_base}:model1"])
    assert code == 1
    assert "nowhere" in capsys.readouterr().err
