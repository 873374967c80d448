import pytest


@pytest.fixture
def calls(monkeypatch):
    """Replace the two library functions; holds what they were called with."""
    found = []
    for name in ("merge_model", "soup_models"):
        monkeypatch.setattr(
            f"embedder.models.merge.{name}",
            lambda *args, **settings: found.append((args, settings)),
        )
    return found


def test_merge_calls_the_library_and_says_what_to_type_next(millpond, calls, tmp_path):
    out = tmp_path / "out of it"
    result = millpond("merge", tmp_path / "a", "--out", out, "--weights-dtype", "bfloat16")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    [(args, settings)] = calls
    assert args == (tmp_path / "a", out)
    assert settings["weights_dtype"] == "bfloat16"
    assert result.stderr.splitlines() == [
        f"Wrote the model {out}",
        f"Next: millpond index python-stdlib --out demo-index --model '{out}'",
    ]


def test_soup_reads_weights_and_method(millpond, calls, tmp_path):
    models = [tmp_path / "a", tmp_path / "b"]
    result = millpond("soup", *models, "--out", tmp_path / "out", "--weights", "2,1.5", "--exact")
    assert result.exit_code == 0, result.stderr
    assert calls == [
        (
            (models, tmp_path / "out", [2.0, 1.5]),
            {"exact": True, "weights_dtype": "float32"},
        )
    ]


def test_weights_that_are_no_numbers_are_refused(millpond, calls, tmp_path):
    args = ("soup", "a", "b", "--out", tmp_path / "out", "--weights", "2;1")
    result = millpond(*args)
    assert result.exit_code == 2
    assert "--weights is '2;1'; expected numbers separated by commas" in result.stderr
    assert calls == []


def test_a_folder_that_is_no_model_is_one_line_and_exit_2(millpond, tmp_path):
    result = millpond("merge", tmp_path, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "there is no millpond.json" in result.stderr
