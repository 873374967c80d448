"""LoRA on the backbone, by peft: added in place, read and written in peft's format, folded in.

The backbone's model keeps its class and its module names; its linear layers alone are wrapped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedder.engine.backbone import Backbone
from embedder.environment import first_line
from retrieval.errors import ModelError, UsageError

ALL_LINEAR = "all-linear"
_PREFIX = "base_model.model."  # what peft puts before a module's name in its files
_ADAPTER = "default"
_LEVELS = 1 << 16  # what a quarter of a word can be


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank updates W + (alpha / rank) B A (arXiv 2106.09685); defaults of arXiv 2409.02727.

    Attributes
    ----------
    dropout : of what A reads, while training.
    targets : "all-linear", or the last parts of module names, such as ("q_proj", "v_proj").

    Raises
    ------
    UsageError : a number out of range, or no targets.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1
    targets: str | tuple[str, ...] = ALL_LINEAR

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        for name, value in (("rank", self.rank), ("alpha", self.alpha)):
            if value < 1:
                raise UsageError(f"LoRA {name} is {value}; it must be 1 or more.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"LoRA dropout is {self.dropout}; expected 0 to below 1.")
        if not self.targets or (isinstance(self.targets, str) and self.targets != ALL_LINEAR):
            raise UsageError(
                f"LoRA targets is {self.targets!r}; expected {ALL_LINEAR!r} or one or more "
                f"names of modules, such as {['q_proj', 'v_proj']}."
            )


class WordDropout(nn.Dropout):
    """``nn.Dropout`` that draws 16 random bits per element on a CPU; elsewhere torch's own.

    The rate is rounded to a multiple of 1 / 65,536, and kept elements are scaled by that rounded
    rate, so that the mean stays what it was. The bits come from torch's generator: the same random
    state gives the same mask.

    Parameters
    ----------
    p : the share of elements set to zero, 0 to below 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the input, floating point of any shape, with elements dropped while training."""
        if not self.training or self.p == 0 or input.device.type != "cpu" or self.inplace:
            return super().forward(input)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        with torch.no_grad():
            words = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
            quarters = words.view(torch.int16)[: input.numel()].view(input.shape)
            mask = (quarters >= dropped - _LEVELS // 2).to(input.dtype)
            mask.mul_(_LEVELS / (_LEVELS - dropped))
        return input * mask


def add_adapter(backbone: Backbone, options: LoraOptions, *, seed: int = 0) -> None:
    """Wrap the backbone's linear layers, so that only the LoRA weights are trainable.

    B starts at zero, so the vectors are as before. A is drawn from ``seed`` alone, the same on
    every device; the global random state is left as it was. LoRA weights are float32 whatever
    the backbone's dtype.

    Raises
    ------
    UsageError : the backbone has an adapter already, or no module has a target's name.
    """
    from peft import LoraConfig

    if has_adapter(backbone):
        raise UsageError("The backbone has an adapter already; merge it before adding another.")
    linear = _linear_layers(backbone.model)
    config: Any = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=linear if options.targets == ALL_LINEAR else list(options.targets),
        fan_in_fan_out=_is_transposed(backbone.model),
        task_type="FEATURE_EXTRACTION",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            _inject(backbone, config)
        except ValueError as error:
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise UsageError(
                f"LoRA targets {options.targets!r} do not fit "
                f"{type(backbone.model).__name__}: {first_line(error)} Set adapter.targets to some "
                f"of its linear layers: {', '.join(known)}."
            ) from error


def leave_casts_to_autocast(backbone: Backbone, leave: bool = True) -> None:
    """Let peft cast no input of a LoRA layer, which autocast would cast back; or let it again."""
    for _, layer in _layers(backbone.model):
        layer.cast_input_dtype_enabled = not leave


def has_adapter(backbone: Backbone) -> bool:
    """Whether the backbone has LoRA layers."""
    return next(_layers(backbone.model), None) is not None


def merge_adapter(backbone: Backbone) -> None:
    """Fold the LoRA into the weights it updates; afterwards the model is plain again.

    The update is computed in float32 and rounded once, to the weights' dtype. A backbone without
    an adapter is left as it is.
    """
    model: Any = backbone.model
    for name, layer in list(_layers(model)):
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    vars(model).pop("peft_config", None)
    model.requires_grad_(True)


def adapter_config(backbone: Backbone, base: str) -> dict[str, Any]:
    """Return the content of adapter_config.json for this backbone's adapter on ``base``.

    What stands at peft's defaults is left out, so that other versions of peft can read it.
    """
    model: Any = backbone.model
    config = model.peft_config[_ADAPTER]
    return {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base,
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": sorted(config.target_modules),
        "fan_in_fan_out": config.fan_in_fan_out,
        "bias": "none",
        "inference_mode": True,
    }


def adapter_parameters(backbone: Backbone) -> dict[str, nn.Parameter]:
    """Return the LoRA parameters under the names that peft gives them in a file."""
    return {
        f"{_PREFIX}{name}.{part}.weight": getattr(layer, part)[_ADAPTER].weight
        for name, layer in _layers(backbone.model)
        for part in ("lora_A", "lora_B")
    }


def adapter_scaling(backbone: Backbone) -> tuple[int, int]:
    """Return rank and alpha of the backbone's adapter."""
    model: Any = backbone.model
    config = model.peft_config[_ADAPTER]
    return config.r, config.lora_alpha


def adapter_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Return the LoRA weights on the CPU under the names that peft gives them in a file."""
    return {
        name: parameter.detach().to("cpu", copy=True).contiguous()
        for name, parameter in adapter_parameters(backbone).items()
    }


def load_adapter(backbone: Backbone, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Put an adapter of peft's format on the backbone, trainable, its weights in float32.

    Parameters
    ----------
    folder : holds adapter_config.json.
    tensors : what adapter_model.safetensors holds.

    Raises
    ------
    ModelError : it is no LoRA, or was made for a base of another shape.
    """
    from peft import LoraConfig

    source = folder / "adapter_config.json"
    try:
        config: Any = LoraConfig.from_pretrained(str(folder))
        if getattr(config.peft_type, "value", config.peft_type) != "LORA":
            raise ModelError(f"{source}: this is {config.peft_type}; expected LORA.")
        config.inference_mode = False
        with torch.random.fork_rng(devices=[]):
            _inject(backbone, config)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{source}: cannot be used: {first_line(error)}") from error
    copy_tensors(adapter_parameters(backbone), tensors, folder / "adapter_model.safetensors")


def copy_tensors(
    targets: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor], source: Path
) -> None:
    """Copy saved tensors into parameters, in the parameters' dtype.

    Raises
    ------
    ModelError : a name or a shape differs; says which and what is needed.
    """
    for name in sorted({*targets, *tensors}):
        if name not in tensors or name not in targets:
            wrong = "lacks" if name in targets else "holds"
            raise ModelError(
                f"{source}: it {wrong} {name!r}, so it was made for another base or another spec."
            )
        saved, needed = tuple(tensors[name].shape), tuple(targets[name].shape)
        if saved != needed:
            raise ModelError(
                f"{source}: {name!r} has shape {saved}, but {needed} is needed here: it was made "
                f"for a base of another size or with other options."
            )
    with torch.no_grad():
        for name, parameter in targets.items():
            parameter.copy_(tensors[name])


def _inject(backbone: Backbone, config: Any) -> None:
    """Wrap the layers, with LoRA weights in float32 and quick dropout; modes stay as they were."""
    from peft import inject_adapter_in_model

    model: Any = backbone.model
    was_training = model.training
    # Without the model's config, by which peft takes the names of layers in a mixture for experts
    # of transformers 4: DeepSeek-V3's gate_proj, a layer of its shared experts, for fused ones.
    plain: Any = nn.Module()
    plain._modules = model._modules
    inject_adapter_in_model(config, plain, adapter_name=_ADAPTER)
    model.peft_config = plain.peft_config
    for parameter in adapter_parameters(backbone).values():
        parameter.data = parameter.data.float()
    for _, layer in _layers(model):
        if isinstance(layer.lora_dropout[_ADAPTER], nn.Dropout):  # peft has Identity for none
            layer.lora_dropout[_ADAPTER] = WordDropout(layer.lora_dropout[_ADAPTER].p)
    model.train(was_training)


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _linear_layers(model: nn.Module) -> list[str]:
    """Return the full names of the linear layers that LoRA can wrap.

    peft's own "all-linear" would take the fused experts of a mixture besides, which are parameters
    and no layers, and Llama 4's router, which returns two tensors.
    """
    from transformers.pytorch_utils import Conv1D

    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not type(module).__name__.endswith("Router")
    ]


def _is_transposed(model: nn.Module) -> bool:
    """Whether linear layers keep their weights (in, out), as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    return any(isinstance(module, Conv1D) for module in model.modules())
