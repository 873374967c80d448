"""The speed script for variants: what takes part, what is shared, what it prints."""

from benchmarks.lab.speed.variants import load_variants, main
from embedder import list_variants


def test_every_variant_takes_part_and_those_of_one_attention_share_a_base(tiny_base):
    models = load_variants(str(tiny_base), "max_tokens=16", [])
    assert set(models) == {variant.name for variant in list_variants()}
    assert len({id(model.backbone) for model in models.values()}) == 2
    assert next(iter(models)) == "mean+causal"
    assert models["model5"].spec.pooling == "multi_layer"
    assert models["model5"].spec.max_tokens == 16


def test_it_prints_a_row_for_each_variant_asked_for(tiny_base, tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(f'{{"_id": "{n}", "text": "pond {n}"}}\n' for n in range(20)))
    asked = ["--variant", "model5", "--variant", "eos+causal", "--options", "", "--rounds", "2"]
    assert main([str(corpus), "--base", str(tiny_base), *asked]) == 0
    printed, progress = capsys.readouterr()
    assert "20 texts" in printed and "2 interleaved rounds" in printed
    for name in ("mean+causal", "model5", "eos+causal"):
        assert f"| {name} " in printed
        assert f"Round 2: {name} took" in progress
    assert "| mean+causal | " in printed and " | 1.00 " in printed


def test_a_variant_that_does_not_exist_is_said(tiny_base, tmp_path, capsys):
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "pond"}\n')
    asked = ["--base", str(tiny_base), "--options", "", "--variant", "modle5"]
    assert main([str(tmp_path / "corpus.jsonl"), *asked]) == 1
    assert "modle5" in capsys.readouterr().err
