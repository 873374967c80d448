"""Every pooling by name, and the layers and the whitening that may follow any of them.

A new pooling costs one function or module, and one entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedder.pooling import modules
from embedder.pooling.modules import (
    LatentKeyPooling,
    LatentQueryPooling,
    LayerWeightPooling,
    PoolingOptions,
)
from retrieval.errors import ModelError, Registry, UsageError

PoolingInput = Literal["tokens", "eos", "layers"]
"""What a pooling reads: every token of the last layer, its EOS state, or a vector per layer."""


@dataclass(frozen=True)
class PoolingShape:
    """What the base fixes: its width D, and L, how many layers the pooling reads."""

    width: int
    layers: int


@dataclass(frozen=True)
class Pooling:
    """One pooling.

    Attributes
    ----------
    build : makes the module, (B, S, D) float32 and mask (B, S) bool to (B, D) float32.
    reads : the input, given whether attention is causal and the options.
    accepts : the fields of PoolingOptions that this pooling uses, beside whiten, which all do.
    template : wrapped around every text before the prompts; ``{text}`` stands for the text.
    appends_eos : whether an EOS token ends every text. False only where the method reads the
        state after which the base would write its next word.
    """

    name: str
    summary: str
    build: Callable[[PoolingShape, PoolingOptions], nn.Module]
    reads: Callable[[bool, PoolingOptions], PoolingInput] = lambda causal, options: "tokens"
    accepts: frozenset[str] = frozenset()
    template: str = "{text}"
    appends_eos: bool = True

    @property
    def options(self) -> frozenset[str]:
        """Every field of PoolingOptions that may be set."""
        return self.accepts | {"whiten"}

    @property
    def trainable(self) -> bool:
        """Whether the pooling has weights; the choice of layers alone gives it none."""
        return bool(self.accepts - {"layers"})


class _Function(nn.Module):
    """A parameter-free pooling as a module."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        return self.function(states, mask)


def _free(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., nn.Module]:
    return lambda shape, options: _Function(function)


def _layers_read(causal: bool, options: PoolingOptions) -> PoolingInput:
    return "layers"


def _last_layer_reads(causal: bool, options: PoolingOptions) -> PoolingInput:
    if options.reads == "auto":
        return "eos" if causal else "tokens"
    return options.reads


_SIZES = frozenset({"latents", "heads", "head_width", "feedforward_multiple", "init", "seed"})

POOLINGS = Registry(
    "pooling",
    {
        entry.name: entry
        for entry in (
            Pooling("eos", "state of the EOS token", _free(modules.last_token)),
            Pooling("cls", "state of the first token", _free(modules.first_token)),
            Pooling("mean", "mean over tokens", _free(modules.mean)),
            Pooling("max", "largest value per coordinate", _free(modules.maximum)),
            Pooling(
                "weighted_mean",
                "mean, later ones count more (SGPT, arXiv 2202.08904)",
                _free(modules.weighted_mean),
            ),
            Pooling(
                "prompt_eos",
                "one-word-summary prompt (PromptEOL, arXiv 2307.16645)",
                _free(modules.last_token),
                template='This sentence: "{text}" means in one word: "',
                appends_eos=False,
            ),
            Pooling(
                "latent_attention",
                "tokens read latents (NV-Embed, arXiv 2405.17428)",
                lambda shape, options: LatentKeyPooling(shape.width, options),
                accepts=_SIZES,
            ),
            Pooling(
                "last_layer",
                "latents read the last layer (arXiv 2409.02727)",
                lambda shape, options: LatentQueryPooling(
                    shape.width, None, options, shape.layers if options.match_layers else 0
                ),
                reads=_last_layer_reads,
                accepts=_SIZES | {"reads", "match_layers"},
            ),
            Pooling(
                "multi_layer",
                "latents read a vector per layer (arXiv 2409.02727)",
                lambda shape, options: LatentQueryPooling(shape.width, shape.layers, options),
                reads=_layers_read,
                accepts=_SIZES | {"layers", "layer_weights"},
            ),
            Pooling(
                "layer_mean",
                "plain mean of a vector per layer",
                _free(modules.mean),
                reads=_layers_read,
                accepts=frozenset({"layers"}),
            ),
            Pooling(
                "layer_weights",
                "a learned scalar per layer (ELMo, arXiv 1802.05365)",
                lambda shape, options: LayerWeightPooling(shape.layers, options),
                reads=_layers_read,
                accepts=frozenset({"layers", "init", "seed"}),
            ),
        )
    },
)


def check_options(pooling: Pooling, options: PoolingOptions) -> None:
    """Raise UsageError where an option is set that the pooling does not use."""
    foreign = sorted(set(options.changed()) - pooling.options)
    if foreign:
        known = [f.name for f in fields(PoolingOptions) if f.name in pooling.options]
        raise UsageError(
            f"Pooling {pooling.name!r} has no option {', '.join(foreign)}. "
            f"It accepts: {', '.join(known)}."
        )


def resolve_layers(options: PoolingOptions, depth: int) -> list[int]:
    """Return the layers that are read, counted from 1, of a base with ``depth`` layers.

    Raises
    ------
    UsageError : the base lacks one of them, or one is named twice.
    """
    asked = options.layers or range(1, depth + 1)
    layers = [depth + 1 + layer if layer < 0 else layer for layer in asked]
    if len(set(layers)) != len(layers) or not all(1 <= layer <= depth for layer in layers):
        raise UsageError(
            f"pooling option layers is {list(asked)}; expected distinct layers from 1 to {depth}, "
            f"or from -{depth} to -1."
        )
    return layers


_NAMES = {"Dense": "linear.", "LayerNorm": "norm."}
"""What stands before the names of a layer's weights in its file, by the layer's kind."""


@dataclass(frozen=True, kw_only=True)
class HeadLayer:
    """One layer after the pooling, as a published model has it.

    Attributes
    ----------
    path : the subfolder of the base that holds its weights; empty where they are the pooling's.
    kind : "Dense", "LayerNorm" or "Normalize".
    reads, width : how many numbers go in and come out.
    bias, activation : of a Dense; the activation is a class of torch.nn.
    space : the digest of the fingerprint of the model whose vectors it was trained to give, so that
        these can be compared; empty for a space of its own.
    """

    path: str
    kind: Literal["Dense", "LayerNorm", "Normalize"]
    reads: int
    width: int
    bias: bool = True
    activation: Literal["Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid"] = "Identity"
    space: str = ""


class _Normalize(nn.Module):
    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1)


class Headed(nn.Module):
    """A pooling followed by layers, Dense and others, as sentence-transformers computes them.

    Parameters
    ----------
    inner : the pooling, (B, S, D) float32 and (B, S) bool to (B, D) float32.
    """

    def __init__(self, inner: nn.Module, layers: Sequence[HeadLayer]) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Sequential(*(_build(layer) for layer in layers))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return (B, width of the last layer) float32."""
        vectors: Tensor = self.head(self.inner(states, mask))
        return vectors

    def fill(self, tensors: Mapping[str, Tensor], base: str) -> None:
        """Copy the weights that ``head_tensors`` gives, or raise ModelError."""
        own = dict(self.head.named_parameters())
        shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != found:
            raise ModelError(
                f"{base}: the weights of the layers after its pooling are {found}; its "
                f"configuration says {shapes}. Copy the folder again."
            )
        for name, parameter in own.items():
            parameter.data.copy_(tensors[name])


def _build(layer: HeadLayer) -> nn.Module:
    if layer.kind == "Normalize":
        return _Normalize()
    if layer.kind == "LayerNorm":
        return nn.LayerNorm(layer.width)
    linear = nn.Linear(layer.reads, layer.width, bias=layer.bias)
    activation: Any = getattr(nn, layer.activation)
    return nn.Sequential(linear, activation())


def head_tensors(
    layers: Sequence[HeadLayer], read: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the weights of the layers as ``Headed.fill`` takes them.

    Parameters
    ----------
    read : what the file of each layer holds, by the layer's path.
    """
    found = {}
    for place, layer in enumerate(layers):
        inner = f"{place}.0." if layer.kind == "Dense" else f"{place}."
        for name, tensor in read.get(layer.path, {}).items():
            found[inner + name.removeprefix(_NAMES[layer.kind])] = tensor.float()
    return found


class Whitened(nn.Module):
    """A pooling followed by ``(x - mean) @ matrix``, where x is its vector at length 1.

    Decoder states lie in a narrow cone: some directions carry most of every vector, whatever the
    text says. Taking off the mean and evening out the variances lets the rest count
    (BERT-whitening, arXiv 2103.15316). ``models.whiten`` fits both on texts.

    It starts with the mean 0 and the identity matrix, which leaves every direction as it is, and
    is trained like the weights of a pooling.

    Parameters
    ----------
    inner : the pooling, (B, S, D) float32 and (B, S) bool to (B, D) float32.
    width : D.
    """

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.mean = nn.Parameter(torch.zeros(width))
        self.matrix = nn.Parameter(torch.eye(width))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return (B, D) float32."""
        return (F.normalize(self.inner(states, mask), dim=-1) - self.mean) @ self.matrix

    def set(self, mean: Tensor, matrix: Tensor) -> None:
        """Take a fitted mean (D,) and matrix (D, D)."""
        with torch.no_grad():
            self.mean.copy_(mean)
            self.matrix.copy_(matrix)


def without_whitening(pooling: nn.Module) -> nn.Module:
    """Return the pooling itself, without the whitening after it where there is one."""
    return pooling.inner if isinstance(pooling, Whitened) else pooling


def build_pooling(
    name: str, shape: PoolingShape, options: PoolingOptions, head: Sequence[HeadLayer] = ()
) -> nn.Module:
    """Return the pooling as a float32 module on the CPU, its weights drawn from options.seed.

    Those of ``head`` are read from the base afterwards. The global random state is left as it was.
    """
    pooling = POOLINGS[name]
    check_options(pooling, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        built = pooling.build(shape, options)
        if head:
            built = Headed(built, head)
        width = head[-1].width if head else shape.width
        return (Whitened(built, width) if options.whiten else built).float()
