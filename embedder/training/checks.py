"""What a run would refuse, told before it: from the files of its base alone, without weights."""

from __future__ import annotations

import torch

from embedder.embedder import Embedder
from embedder.engine.backbone import load_backbone
from embedder.models.bases import BASES, is_converted
from embedder.training.batch import SourceTokenizer
from embedder.training.config import TrainConfig
from embedder.training.distillation.teachers import check_teacher
from embedder.training.setup import check_matryoshka, choose_trained
from retrieval.protocols import Notify, silent


def check_model(config: TrainConfig, notify: Notify) -> int | None:
    """Raise what ``train`` would of the config's model, and of a teacher that has to be there.

    The base is built without weights. What shows in computing only, such as an attention that it
    ignores, is not seen. A built-in base that is not in the cache is not fetched; one line says so.

    Returns
    -------
    The length of the vectors; None where the base was not looked at.

    Raises
    ------
    UsageError, UnknownNameError : no such base, or it lacks what the config names: layers, modules
        for LoRA, tokens, room for the prompts, coordinates.
    ModelError : its files cannot be read, or ``adapter.start`` belongs to another base.
    """
    if config.teacher is not None:
        check_teacher(config.teacher)
    spec = config.model
    base = BASES.get(spec.adapter_base or spec.base)
    if base is not None and not is_converted(base.gguf_sha256):
        notify(f"{base.name} is not in the cache, so its layers and tokens were not checked.")
        return None
    backbone = load_backbone(spec, torch.device("meta"), torch.float32, notify)
    embedder = Embedder(spec, backbone, notify=notify)
    if config.teacher is None or not config.teacher.keep_projection:  # else the teacher's width
        check_matryoshka(config, embedder)
    choose_trained(config, embedder, silent)
    SourceTokenizer(embedder, config.data)
    return embedder.dimension
