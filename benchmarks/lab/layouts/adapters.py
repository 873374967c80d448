"""Tiny random models that sentence-transformers does not compute, and their authors' recipes.

Adapters in peft's format, LLM2Vec and NV-Embed; each recipe is restated with plain calls of peft
and transformers, one text at a time.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, LlamaConfig, MistralConfig

from benchmarks.lab.layouts import decoders
from embedder import Embedder, VariantSpec
from embedder.models.lora import LoraOptions, add_adapter
from embedder.models.names import write_value
from embedder.models.saving import save_model
from retrieval import Vectors

_LONGEST = 64
_EOS = 2
_LATENTS, _HEADS, _HEAD_WIDTH = 6, 2, 12
_INSTRUCTION = "Given a question, find what answers it:\n"


@dataclass(frozen=True)
class Recipe:
    """How authors compute vectors.

    Attributes
    ----------
    states : token ids to the last layer's states (T, D).
    pool : states (T, D), and how many tokens stand before the text, to a vector (D,) of length 1.
    query, document : prompts.
    ending : ids after a text that the tokenizer does not put there itself.
    skips_bos : whether BOS counts as standing before a text without a prompt too.
    """

    name: str
    tokenizer: Any
    states: Callable[[Sequence[int]], Tensor]
    pool: Callable[[Tensor, int], Tensor]
    query: str = ""
    document: str = ""
    ending: tuple[int, ...] = ()
    skips_bos: bool = True

    def encode_query(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D)."""
        return self._encode(texts, self.query)

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D)."""
        return self._encode(texts, self.document)

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        room = _LONGEST - len(self.ending)
        skipped = len(self.tokenizer(prompt)["input_ids"]) if prompt or self.skips_bos else 0
        vectors = []
        for text in texts:
            ids = self.tokenizer(prompt + text, truncation=True, max_length=room)["input_ids"]
            with torch.inference_mode():
                vectors.append(self.pool(self.states([*ids, *self.ending]), skipped).numpy())
        return np.stack(vectors)


def write_adapter(
    folder: Path, base: Path, *, seed: int = 0, auto: Any = AutoModel, **options: Any
) -> Path:
    """Save a random adapter as peft does, with a B that is not zero; return its folder."""
    from peft import LoraConfig, get_peft_model

    plain = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 for an old name
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        model: Any = get_peft_model(auto.from_pretrained(base), LoraConfig(**{**plain, **options}))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder)
    return folder


def peft_model(
    base: Path, adapters: Sequence[Path], *, is_causal: bool = True, auto: Any = AutoModel
) -> Any:
    """Return the base with adapters folded in by peft, without a head."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = auto.from_pretrained(base)
        model.config.is_causal = is_causal
        for adapter in adapters:
            merged: Any = PeftModel.from_pretrained(model, str(adapter))
            model = merged.merge_and_unload()
    return getattr(model, "model", model).eval()


def nv_embed_vector(weights: Mapping[str, Tensor], states: Tensor, skipped: int) -> Tensor:
    """Return NV-Embed's vector (D,): states (T, D) ask latents, and the text's are averaged."""

    def norm(name: str, values: Tensor) -> Tensor:
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.layer_norm(values, values.shape[-1:], scale, shift)

    attend, forward = "cross_attend_blocks.0.", "cross_attend_blocks.1."
    asked = norm(f"{attend}norm", states) @ weights[f"{attend}fn.to_q.weight"].T
    latents = norm(f"{attend}norm_context", weights["latents"])
    keys, values = (latents @ weights[f"{attend}fn.to_kv.weight"].T).chunk(2, dim=-1)
    heads = []
    for head in range(_HEADS):
        part = slice(head * _HEAD_WIDTH, (head + 1) * _HEAD_WIDTH)
        shares = (asked[:, part] @ keys[:, part].T / _HEAD_WIDTH**0.5).softmax(dim=-1)
        heads.append(shares @ values[:, part])
    mixed = torch.cat(heads, dim=-1) @ weights[f"{attend}fn.to_out.weight"].T + states
    first, last = (
        (weights[f"{forward}fn.net.{place}.weight"], weights[f"{forward}fn.net.{place}.bias"])
        for place in (0, 2)
    )
    value, gate = F.linear(norm(f"{forward}norm", mixed), *first).chunk(2, dim=-1)
    mixed = mixed + F.linear(value * F.gelu(gate), *last)
    return F.normalize(mixed[skipped:].mean(dim=0), dim=-1)


def list_adapters(root: Path) -> Iterator[tuple[str, str, Any]]:
    """Yield each layout, written just now: its title, our name of it, and what is right.

    What is right has ``encode_query`` and ``encode_document``, and a ``name``.
    """
    base = _write_base(root / "llama")
    yield _plain(root, base)
    yield _repllama(root, base)
    yield _llm2vec(root, base)
    yield _nv_embed(root)
    yield _own(root, base)


def _write_base(folder: Path) -> Path:
    """Save a Llama whose tokenizer puts BOS alone."""
    made: Any = LlamaConfig
    return decoders.write_layout(
        folder, made(**decoders.SIZES), ["mean_tokens"], single="<s> $A", normalize=False
    )


def _states(model: Any) -> Callable[[Sequence[int]], Tensor]:
    def compute(ids: Sequence[int]) -> Tensor:
        states: Tensor = model(torch.tensor([ids])).last_hidden_state[0]
        return states

    return compute


def _last(states: Tensor, skipped: int) -> Tensor:
    return F.normalize(states[-1], dim=-1)


def _mean(states: Tensor, skipped: int) -> Tensor:
    return F.normalize(states.mean(dim=0), dim=-1)


def _mean_of_text(states: Tensor, skipped: int) -> Tensor:
    return F.normalize(states[skipped:].mean(dim=0), dim=-1)


def _recipe(name: str, base: Path, adapters: Sequence[Path], is_causal: bool, **how: Any) -> Recipe:
    model = peft_model(base, adapters, is_causal=is_causal)
    return Recipe(name, AutoTokenizer.from_pretrained(base), _states(model), **how)


def _plain(root: Path, base: Path) -> tuple[str, str, Recipe]:
    folder = write_adapter(root / "peft", base, use_rslora=True)
    recipe = _recipe("peft", base, [folder], False, pool=_mean, ending=(_EOS,))
    return "peft folder", f"{folder}:mean+bidirectional,max_tokens={_LONGEST}", recipe


def _repllama(root: Path, base: Path) -> tuple[str, str, Recipe]:
    folder = write_adapter(root / "repllama", base, seed=1, task_type="FEATURE_EXTRACTION")
    prompts = {"query": "query: ", "document": "passage: "}
    recipe = _recipe("peft", base, [folder], True, pool=_last, ending=(_EOS,), **prompts)
    typed = "".join(f",{side}_prompt={prompt}" for side, prompt in prompts.items())
    return "repllama", f"{folder}:eos+causal,max_tokens={_LONGEST}{typed}", recipe


def _llm2vec(root: Path, base: Path) -> tuple[str, str, Recipe]:
    lower = write_adapter(root / "mntp", base, seed=2, target_modules="all-linear")
    upper = write_adapter(root / "supervised", base, seed=3, target_modules="all-linear")
    config = json.loads((upper / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(lower)
    decoders.write_json(upper / "adapter_config.json", config)
    lengths = {"max_length": _LONGEST, "doc_max_length": _LONGEST}
    settings = {"pooling_mode": "mean", "skip_instruction": True, **lengths}
    decoders.write_json(upper / "llm2vec_config.json", settings)
    recipe = _recipe("peft", base, [lower, upper], False, pool=_mean_of_text, query=_INSTRUCTION)
    return "LLM2Vec", f"{upper},query_prompt={write_value(_INSTRUCTION)}", recipe


def _make_mistral() -> Any:
    config: Any = MistralConfig
    model: Any = AutoModel
    return model.from_config(config(**decoders.SIZES, sliding_window=None))


def _nv_embed(root: Path) -> tuple[str, str, Recipe]:
    folder = write_nv_embed(root / "NV-Embed-v2")
    name = f"{folder},query_prompt={write_value(_INSTRUCTION)}"
    return "NV-Embed", name, nv_embed_recipe(folder, _INSTRUCTION)


def nv_embed_recipe(folder: Path, instruction: str) -> Recipe:
    """Return what NV-Embed's own code computes of a folder that ``write_nv_embed`` wrote."""
    decoder = _make_mistral().eval()
    decoder.config.is_causal = False
    weights: dict[str, dict[str, Tensor]] = {"embedding_model": {}, "latent_attention_model": {}}
    for name, tensor in load_file(folder / "model.safetensors").items():
        part, _, rest = name.partition(".")
        weights[part][rest] = tensor
    decoder.load_state_dict(weights["embedding_model"])
    return Recipe(
        "its code, restated",
        AutoTokenizer.from_pretrained(folder, config=decoder.config),
        _states(decoder),
        partial(nv_embed_vector, weights["latent_attention_model"]),
        query=instruction,
        ending=(_EOS,),
        skips_bos=False,
    )


def write_nv_embed(folder: Path, *, code: str = "raise SystemExit") -> Path:
    """Save a random model in NV-Embed-v2's layout; ``code`` is in the file that auto_map names."""
    torch.manual_seed(0)
    decoder = _make_mistral()
    width, inner = decoders.SIZES["hidden_size"], _HEADS * _HEAD_WIDTH
    attend, forward = "cross_attend_blocks.0.", "cross_attend_blocks.1."
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (_LATENTS, width),
        f"{attend}fn.to_q.weight": (inner, width),
        f"{attend}fn.to_kv.weight": (2 * inner, width),
        f"{attend}fn.to_out.weight": (width, inner),
        f"{forward}fn.net.0.weight": (8 * width, width),
        f"{forward}fn.net.0.bias": (8 * width,),
        f"{forward}fn.net.2.weight": (width, 4 * width),
        f"{forward}fn.net.2.bias": (width,),
    }
    for name in (f"{attend}norm", f"{attend}norm_context", f"{forward}norm"):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    tensors = {
        f"embedding_model.{name}": 4 * tensor if tensor.dim() > 1 else tensor
        for name, tensor in decoder.state_dict().items()
    }
    tensors |= {
        f"latent_attention_model.{name}": torch.randn(shape) / shape[-1] ** 0.5
        for name, shape in shapes.items()
    }
    tokenizer = decoders.make_tokenizer(single="<s> $A", eos="</s>")
    tokenizer.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["NVEmbedModel"],
        "auto_map": {"AutoModel": "modeling_nvembed.NVEmbedModel"},
        "model_type": "nvembed",
        "is_mask_instruction": True,
        "text_config": {**decoders.SIZES, "model_type": "bidir_mistral", "sliding_window": 4},
        "latent_attention_config": {
            "model_type": "latent_attention",
            "num_latents_value": _LATENTS,
            "num_cross_heads": _HEADS,
            "cross_dim_head": _HEAD_WIDTH,
            "hidden_dim": width,
            "latent_dim": width,
        },
    }
    decoders.write_json(folder / "config.json", config)
    decoders.write_json(folder / "sentence_bert_config.json", {"max_seq_length": _LONGEST})
    (folder / "modeling_nvembed.py").write_text(code)
    return folder


def _own(root: Path, base: Path) -> tuple[str, str, Any]:
    """Save a trained LoRA as a MODEL_DIR, which sentence-transformers reads by itself."""
    from sentence_transformers import SentenceTransformer

    spec = VariantSpec(
        base=str(base), pooling="mean", attention="bidirectional", max_tokens=_LONGEST
    )
    embedder = Embedder.from_spec(spec, device="cpu")
    embedder.backbone.requires_grad_(False)
    add_adapter(embedder.backbone, LoraOptions(rank=2, alpha=4))
    for name, weights in embedder.backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.3)
    save_model(embedder, root / "own", record={})
    library: Any = SentenceTransformer(str(root / "own"), device="cpu")
    library.name = "sentence-transformers"
    return "our own adapter MODEL_DIR", str(root / "own"), library
