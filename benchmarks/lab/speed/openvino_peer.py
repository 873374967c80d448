"""The plain base in OpenVINO, where that is installed: the same weights and the same tokens."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.lab.speed.plain import load_plain
from embedder.environment import quiet_transformers
from retrieval.protocols import Vectors

__all__ = ["OpenVinoEncoder", "has_openvino"]


def has_openvino() -> bool:
    """Whether the package ``openvino`` is installed."""
    return importlib.util.find_spec("openvino") is not None


class _Mean(nn.Module):
    """A decoder, the mean of its last states, length 1: what is handed over to OpenVINO."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        kept = attention_mask.unsqueeze(-1).to(states.dtype)
        return nn.functional.normalize((states * kept).sum(1) / kept.sum(1), dim=-1)


class OpenVinoEncoder:
    """Batches of texts of similar length, longest first, computed by OpenVINO in float32.

    It takes as many threads as torch does.

    Parameters
    ----------
    folder : what ``write_plain_base`` wrote.
    """

    def __init__(self, folder: Path, max_tokens: int, batch_texts: int) -> None:
        openvino: Any = importlib.import_module("openvino")
        self._tokenizer, model = load_plain(folder)
        self._max_tokens = max_tokens
        self._batch_texts = batch_texts
        ids = torch.zeros(2, 7, dtype=torch.int64)
        mask = torch.ones_like(ids)
        mask[1, 4:] = 0  # with padding, so that the trace reads the mask
        with warnings.catch_warnings(), quiet_transformers(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the trace, whose outcome is compared afterwards
            traced = openvino.convert_model(
                _Mean(model), example_input={"input_ids": ids, "attention_mask": mask}
            )
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compute = openvino.compile_model(traced, "CPU", settings)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1 in the order of ``texts``."""
        order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
        found = []
        for start in range(0, len(order), self._batch_texts):
            batch = self._tokenizer(
                [texts[index] for index in order[start : start + self._batch_texts]],
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="np",
            )
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            found.append(self._compute(inputs)[0])
        vectors: Vectors = np.empty_like(rows := np.concatenate(found))
        vectors[order] = rows
        return vectors
