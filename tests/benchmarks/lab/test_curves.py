"""The figure of learning curves."""

import json
import xml.etree.ElementTree

from benchmarks.lab.builtin.curves import main, read_scores


def write_run(folder, scores):
    folder.mkdir()
    entries = [{"step": 1, "loss": 2.0}]
    entries += [{"step": step, "sts": s, "ndcg": s / 2} for step, s in scores.items()]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, entries)))
    return folder


def test_scores_are_by_texts_seen(tmp_path):
    run = write_run(tmp_path / "cosine", {10: 0.5, 20: 0.6})
    assert read_scores(run, 96) == {
        "sts": [(960, 0.5), (1920, 0.6)],
        "ndcg": [(960, 0.25), (1920, 0.3)],
    }


def test_each_run_is_a_line_up_to_where_the_shortest_ends(tmp_path, capsys):
    runs = [
        write_run(tmp_path / "cosine", {10: 0.5, 20: 0.6, 30: 0.7}),
        write_run(tmp_path / "info_nce", {10: 0.4, 20: 0.5}),
    ]
    assert main([*map(str, runs), "--out", str(tmp_path / "curves.svg")]) == 0
    drawn = xml.etree.ElementTree.parse(tmp_path / "curves.svg").getroot()
    lines = [line for line in drawn.iter() if line.tag.endswith("polyline")]
    assert [len(line.get("points").split()) for line in lines] == [2, 2, 2, 2]
    assert "info_nce, 1,920 texts: sts 0.5000, ndcg 0.2500" in capsys.readouterr().out
