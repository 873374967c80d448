"""Tiny random encoders in the layouts that their authors publish, written file by file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    ModernBertConfig,
    ModernBertModel,
    MPNetConfig,
    MPNetModel,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5EncoderModel,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

WIDTH = 16
SMALL: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL |= {"intermediate_size": 32, "initializer_range": 0.3}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST = 24


def word_pieces(*specials: str) -> dict[str, int]:
    """Return a vocabulary of letters, each also inside a word, and a few words."""
    pieces = [*specials, "mill", "pond", "the", ":", ".", *LETTERS, *(f"##{c}" for c in LETTERS)]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def byte_tokenizer(start: str, end: str, *more: str) -> Any:
    """Return a byte-level BPE whose post-processor puts two special tokens around a text."""
    specials = [start, "<pad>", end, *more]
    vocab = {token: i for i, token in enumerate([*specials, *pre_tokenizers.ByteLevel.alphabet()])}
    backend = Tokenizer(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    around = [(token, vocab[token]) for token in (start, end)]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=f"{start} $A {end} $B {end}", special_tokens=around
    )
    named: dict[str, Any] = {
        "cls_token": start,
        "sep_token": end,
        "eos_token": end,
        "pad_token": "<pad>",
    }
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=backend, model_max_length=LONGEST, **named)


def sentence_pieces() -> XLMRobertaTokenizer:
    """Return a Unigram tokenizer of two words and the letters."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁mill", "▁pond", ":", ".", *LETTERS, "<mask>"]
    vocab = [(piece, -float(len(LETTERS) + 1) if len(piece) == 1 else -2.0) for piece in pieces]
    return XLMRobertaTokenizer(vocab=vocab, model_max_length=LONGEST)


def write_bert(folder: Path) -> None:
    """Save BERT with WordPiece."""
    vocab = word_pieces("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    BertTokenizer(vocab=vocab, model_max_length=LONGEST).save_pretrained(folder)
    BertModel(BertConfig(vocab_size=len(vocab), **SMALL)).save_pretrained(folder)


def write_mpnet(folder: Path) -> None:
    """Save MPNet with WordPiece."""
    vocab = word_pieces("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")
    MPNetTokenizer(vocab=vocab, model_max_length=LONGEST).save_pretrained(folder)
    MPNetModel(MPNetConfig(vocab_size=len(vocab), **SMALL)).save_pretrained(folder)


def write_roberta(folder: Path) -> None:
    """Save RoBERTa with a byte-level BPE."""
    tokenizer = byte_tokenizer("<s>", "</s>", "<unk>")
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=LONGEST + 2, **SMALL)
    RobertaModel(config).save_pretrained(folder)


def write_xlm_roberta(folder: Path) -> None:
    """Save XLM-R with SentencePiece."""
    tokenizer = sentence_pieces()
    tokenizer.save_pretrained(folder)
    positions = LONGEST + 2  # they begin after the one of padding
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=positions, pad_token_id=1, **SMALL
    )
    XLMRobertaModel(config).save_pretrained(folder)


def write_modernbert(folder: Path) -> None:
    """Save ModernBERT with a byte-level BPE."""
    tokenizer = byte_tokenizer("[CLS]", "[SEP]")
    tokenizer.save_pretrained(folder)
    make: Any = ModernBertConfig
    config = make(
        vocab_size=len(tokenizer),
        pad_token_id=1,
        local_attention=4,
        global_attn_every_n_layers=2,
        **SMALL,
    )
    ModernBertModel(config).save_pretrained(folder)


def write_t5(folder: Path) -> None:
    """Save the encoder of T5 with a byte-level BPE."""
    tokenizer = byte_tokenizer("<unk>", "</s>")
    tokenizer.save_pretrained(folder)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )
    T5EncoderModel(config).save_pretrained(folder)


NORMALIZE = {"type": "sentence_transformers.models.Normalize", "path": "2_Normalize"}
PROMPTS = {"query": "query: ", "document": "passage: "}
QUERY_ONLY = {"query": "the query: ", "document": ""}

LAYOUTS: dict[str, tuple[Callable[[Path], None], str, dict[str, str], bool]] = {
    "multilingual-e5": (write_xlm_roberta, "mean_tokens", PROMPTS, True),
    "all-mpnet": (write_mpnet, "mean_tokens", {}, True),
    "all-distilroberta": (write_roberta, "mean_tokens", {}, True),
    "bge-m3": (write_xlm_roberta, "cls_token", {}, True),
    "arctic-embed": (write_bert, "cls_token", QUERY_ONLY, True),
    "all-MiniLM": (write_bert, "mean_tokens", {}, True),
    "bge-small": (write_bert, "cls_token", {}, True),
    "gte-modernbert": (write_modernbert, "cls_token", {}, False),
    "sentence-t5": (write_t5, "mean_tokens", {}, True),
}
"""Name to: what writes the transformer, the pooling, prompts, whether it ends with Normalize."""


def write_layout(name: str, folder: Path, **settings: Any) -> Path:
    """Write one of LAYOUTS; settings go into config_sentence_transformers.json."""
    write, pooling, prompts, normalizes = LAYOUTS[name]
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
    modules = [
        {"type": "sentence_transformers.models.Transformer", "path": ""},
        {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
        *([NORMALIZE] if normalizes else []),
    ]
    if name == "sentence-t5":
        modules.insert(2, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"})
        write_dense(folder / "2_Dense", 24)
    write_json(folder / "modules.json", number(modules))
    pool = {"word_embedding_dimension": WIDTH, f"pooling_mode_{pooling}": True}
    other = "pooling_mode_cls_token" if pooling == "mean_tokens" else "pooling_mode_mean_tokens"
    write_json(folder / "1_Pooling" / "config.json", {**pool, other: False})
    longest = {"max_seq_length": LONGEST, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", longest)
    config = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(folder / "config_sentence_transformers.json", {**config, **settings})
    return folder


def number(modules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of modules.json with their numbers and names."""
    return [{"idx": i, "name": str(i), **module} for i, module in enumerate(modules)]


def write_dense(folder: Path, width: int) -> None:
    """Save a Dense layer without an activation."""
    activation = "torch.nn.modules.linear.Identity"
    shape = {"in_features": WIDTH, "out_features": width, "bias": False}
    write_json(folder / "config.json", {**shape, "activation_function": activation})
    save_file({"linear.weight": torch.randn(width, WIDTH)}, folder / "model.safetensors")


def write_json(path: Path | str, data: object) -> None:
    """Write a JSON file and the folders that it lies in."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(data))


def change_json(path: Path | str, **changes: Any) -> None:
    """Replace values of a JSON file."""
    write_json(path, {**json.loads(Path(path).read_text()), **changes})
