from dataclasses import replace

import pytest

from embedder.training import example_config, load_config
from retrieval.errors import SourceNotFoundError, UnknownNameError, UsageError

SMALL = """
batch_pairs = 4
steps = 2
[model]
base = "smollm2-135m"
pooling = "mean"
attention = "causal"
[[data]]
path = "pairs.jsonl"
"""


def load(folder, text):
    path = folder / "train.toml"
    path.write_text(text)
    return load_config(path)


def test_a_short_config_has_the_papers_defaults(tmp_path):
    config = load(tmp_path, SMALL)
    assert (config.adapter.rank, config.adapter.alpha, config.adapter.dropout) == (16, 32, 0.1)
    assert (config.loss.scale, config.optimiser.learning_rate) == (50, 1e-5)


def test_paths_are_relative_to_the_configs_folder(tmp_path):
    config = load(tmp_path, SMALL + '[evaluate]\nsts = "dev/sts.tsv"\n')
    assert config.data[0].path == tmp_path / "pairs.jsonl"
    assert config.evaluate.sts == tmp_path / "dev" / "sts.tsv"


def test_the_example_is_a_config(tmp_path):
    config = load(tmp_path, example_config())
    assert config.epochs == 1


def test_every_commented_key_of_the_example_is_one_that_exists(tmp_path):
    head, keys = example_config().split("batch_pairs", 1)
    assert all(line.startswith("#") or not line for line in head.splitlines())
    text = "batch_pairs" + keys.replace("\n# ", "\n")
    whole = load(tmp_path, text.replace('pooling = "mean" ', 'pooling = "multi_layer" '))
    assert whole.evaluate.best == "sts"
    assert whole.model.pooling_options.latents == 64
    assert whole.loss.matryoshka_dimensions == (64, 128, 256, 576)
    defaults = load(tmp_path, example_config())
    assert whole.adapter.start == "millpond-135m"  # has no default that TOML could name
    assert whole.checkpoint == defaults.checkpoint
    assert replace(whole.adapter, start=None) == defaults.adapter


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[loss]\nscales = 3", r"Unknown config key 'loss\.scales'. Did you mean 'loss\.scale'"),
        ("[model.pooling_options]\nlatent = 3", r"Did you mean 'model\.pooling_options\.latents'"),
        ("[losss]\nscale = 3", r"Unknown config key 'losss'. Did you mean 'loss'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_one(tmp_path, line, message):
    with pytest.raises(UnknownNameError, match=message):
        load(tmp_path, SMALL + line)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "learning_rate = 1e-3\n" + SMALL,
            "key 'learning_rate'; expected it as optimiser.learning_rate.",
        ),
        (SMALL + "[optimiser]\nrank = 3", "key 'optimiser.rank'; expected it as adapter.rank."),
        (SMALL + "steps = 9", "key 'data[0].steps'; expected it as steps."),
        (SMALL + "[loss]\nlatents = 3", "expected it as model.pooling_options.latents."),
    ],
)
def test_a_key_in_another_table_is_named_with_its_own_and_the_file(tmp_path, text, message):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'train.toml'}: Unknown config ")
    assert str(caught.value).endswith(message)


def test_a_byte_order_mark_and_line_ends_of_windows_are_toml(tmp_path):
    assert load(tmp_path, "\ufeff" + SMALL.replace("\n", "\r\n")) == load(tmp_path, SMALL)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('[loss]\nscale = "3"', r"loss\.scale is a string \('3'\); expected a number"),
        ("[loss]\nsymmetric = 1", r"loss\.symmetric is a whole number \(1\); expected true or"),
        ("[loss]\nhard_negatives = 1.5", r"loss\.hard_negatives .* expected a whole number"),
        ("[loss]\nmatryoshka_dimensions = [8, 'x']", r"matryoshka_dimensions\[1\] is a string"),
        ('[adapter]\nkind = "lorra"', r"adapter\.kind .* one of 'lora', 'full', 'none'"),
        ("[optimiser]\nlearning_rate = -1", r"\[optimiser\] learning_rate is -1"),
        ("[loss]\nscale = nan", r"loss\.scale .* expected a number"),
        ("[evaluate]\nbest = 'sts'", r"best is 'sts', which needs evaluate\.sts"),
        ("[adapter]\nkind = 'none'", "nothing would be trained"),
        ("[[data]]\nweight = 1", r"The config has no data\[1\]\.path"),
        ("[[data]]\npath = 'x'\nmax_query_tokens = 900", r"data\[1\]\.max_query_tokens is 900"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_accepted(tmp_path, line, message):
    with pytest.raises(UsageError, match=message):
        load(tmp_path, SMALL + line)


def test_steps_and_epochs_exclude_each_other(tmp_path):
    with pytest.raises(UsageError, match="has both steps and epochs; expected one"):
        load(tmp_path, "epochs = 1\n" + SMALL)
    with pytest.raises(UsageError, match="has neither steps nor epochs; expected"):
        load(tmp_path, SMALL.replace("steps = 2", ""))


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path):
    with pytest.raises(SourceNotFoundError, match="millpond train --example"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="this is not TOML"):
        load(tmp_path, "batch_pairs = = 4")
    path = tmp_path / "latin-1.toml"
    path.write_bytes('# "caf\xe9"'.encode("latin-1"))
    with pytest.raises(UsageError, match="latin-1.toml: byte 7 is not UTF-8, as TOML is"):
        load_config(path)
