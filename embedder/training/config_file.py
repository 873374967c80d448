"""The config that ``millpond train --example`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedder.training.config import TrainConfig
from embedder.training.typed import is_path, read_dataclass, read_toml

__all__ = ["example_config", "load_config", "read_config"]

_EXAMPLE = """\
# A training run of millpond. Save this as train.toml, put your pairs into pairs.jsonl, then:
#
#   millpond train train.toml --out my-model
#
# pairs.jsonl holds one JSON object a line, for example:
#   {"query": "who grinds corn?", "positive": "Millers do.", "negatives": ["Ponds are wet."]}
# "negatives" may be left out. Commented keys show their defaults.

batch_pairs = 64          # more is better, as the others' positives are the negatives
epochs = 1                # or: steps = 1000
# seed = 0
# gradient_cache = false  # true: memory does not grow with batch_pairs, a third slower
# gradient_checkpointing = false
# forward_tokens = 2048   # most tokens in one forward pass; default by device
# dtype = "auto"          # bfloat16 on a GPU that has it, else float32
# log_every_steps = 10
# weights_dtype = "float32"   # of the saved weights; "bfloat16" halves the files

[model]
base = "smollm2-135m"     # 'millpond models' lists more; or a folder, a .gguf file, a hub id
pooling = "mean"          # 'millpond variants' lists all poolings and attentions
attention = "bidirectional"
base_layers = 12          # the first 12 layers only; leave out for all
max_tokens = 256
# query_prompt = ""       # put before each query, or around it where {text} stands
# document_prompt = ""
# [model.pooling_options] # of a pooling with weights, such as multi_layer
# latents = 64

[[data]]                  # as many of these as you have sources
path = "pairs.jsonl"      # .jsonl, .jsonl.gz, .parquet, or a BEIR folder with qrels/train.tsv
# weight = 1.0            # how often its pairs are seen, relative to the others'
# query_prompt = "..."    # instead of the model's
# document_prompt = "..."
# max_query_tokens = 64
# max_document_tokens = 256

[loss]
scale = 50                # what the cosine is multiplied with: 1 / temperature
hard_negatives = 1        # most negatives of a pair in a batch
# matryoshka_dimensions = [64, 128, 256, 576]
# symmetric = false
# one_source_per_batch = false
# mask_duplicates = true

[optimiser]
learning_rate = 2e-4
# pooling_learning_rate = 2e-4
# weight_decay = 0.0
# warmup_ratio = 0.1
# schedule = "linear"     # or "cosine", "constant"
# max_gradient_norm = 1.0

[adapter]
kind = "lora"             # or "full"; "none" trains a pooling's weights only
# rank = 16
# alpha = 32
# dropout = 0.1
# targets = "all-linear"
# start = "millpond-135m" # go on from a trained model of the same [model], or its folder

# [evaluate]
# sts = "dev.tsv"         # score, sentence1, sentence2 by tabs, with a header
# beir = "my-beir-folder"
# beir_split = "dev"
# every_steps = 100
# best = "sts"            # keep the weights that were best; or "ndcg"

[checkpoint]
every_steps = 100
# keep = 2
"""


def example_config() -> str:
    """Return a commented TOML config that runs."""
    return _EXAMPLE


def load_config(path: str | Path) -> TrainConfig:
    """Return the config of a TOML file; paths in it are relative to its folder.

    Raises
    ------
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    UnknownNameError, UsageError : it is not TOML, or holds a key or value that is not accepted.
    """
    data = read_toml(Path(path), "millpond train --example")
    return read_config(data, Path(path).parent)


def read_config(data: Mapping[str, Any], folder: Path) -> TrainConfig:
    """Return the config that a mapping describes, its paths made absolute from ``folder``."""
    config = read_dataclass(TrainConfig, data)

    def absolute(path: Path) -> Path:
        return (folder / path.expanduser()).resolve()

    evaluate = config.evaluate
    model = config.model
    if is_path(model.base):
        model = replace(model, base=str(absolute(Path(model.base))))
    adapter = config.adapter
    if adapter.start is not None and is_path(adapter.start):
        adapter = replace(adapter, start=str(absolute(Path(adapter.start))))
    return replace(
        config,
        model=model,
        adapter=adapter,
        data=tuple(replace(source, path=absolute(source.path)) for source in config.data),
        evaluate=replace(
            evaluate,
            sts=evaluate.sts and absolute(evaluate.sts),
            beir=evaluate.beir and absolute(evaluate.beir),
        ),
    )
