"""One step's gradients, for tests of any number of processes."""

import torch

from embedder.training import check_data
from embedder.training.batch import SourceTokenizer, draw_pairs
from embedder.training.loss import BatchLoss, cached_backward, plain_backward
from embedder.training.processes import sum_gradients
from embedder.training.setup import build_model, trained_parameters


def step_gradients(config, processes, *, cached, packs=True):
    """Return the gradients by parameter name with the loss under "loss", and the chunks made."""

    embedder = build_model(config, processes.device, lambda _: None)
    embedder.train()
    embedder.packs = packs
    data = check_data(config)
    pairs = range(config.batch_pairs)
    step = draw_pairs(data, [(0, index) for index in pairs], config.loss.hard_negatives, (0,))
    local = SourceTokenizer(embedder, config.data).local_batch(
        step, processes, config.forward_tokens or 64
    )
    loss = BatchLoss(step, local, config.loss, processes, data.known)
    torch.manual_seed(1)
    if cached:
        value = cached_backward(embedder.embed, local.chunks, loss, device=processes.device)
    else:
        value = plain_backward(embedder.embed, local.chunks, loss)
    sum_gradients(trained_parameters(embedder), processes)
    found = {n: p.grad for n, p in embedder.named_parameters() if p.grad is not None}
    return {"loss": value, **found}, len(local.chunks)
