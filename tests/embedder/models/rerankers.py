"""Tiny random rerankers in the layouts that their authors publish."""

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from benchmarks.lab.layouts.decoders import SIZES, TOKENS, make_tokenizer, write_json
from benchmarks.lab.layouts.encoders import SMALL, byte_tokenizer, word_pieces

LONGEST = 24
TEMPLATE = (
    "<|im_start|>judge: yes or no\n"
    "{% for m in messages if m.role == 'query' %}<Query>: {{ m.content }}\n{% endfor %}"
    "{% for m in messages if m.role == 'document' %}<Document>: {{ m.content }}{% endfor %}"
    "<|im_end|>"
)
"""A chat template that puts query and document into one prompt, as Qwen3-Reranker has one."""
CHAT = "{% for message in messages if message.role == 'user' %}{{ message.content }}{% endfor %}"
"""A chat template with no place for them."""


def write_bert(folder, *, labels=1, activation=None):
    """A cross-encoder as ms-marco-MiniLM is published: a head of one number on BERT."""
    torch.manual_seed(0)
    vocab = word_pieces("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    BertTokenizer(vocab=vocab, model_max_length=LONGEST).save_pretrained(folder)
    config = BertConfig(vocab_size=len(vocab), num_labels=labels, **SMALL)
    if activation:
        config.sentence_transformers = {"activation_fn": activation}
    BertForSequenceClassification(config).save_pretrained(folder)


def write_roberta(folder):
    """A head on RoBERTa, whose positions begin after the padding's; no file names its longest."""
    torch.manual_seed(0)
    tokenizer = byte_tokenizer("<s>", "</s>", "<unk>")
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(folder)
    config = RobertaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=LONGEST + 2, num_labels=1, **SMALL
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)


def _config(**more):
    return Qwen3Config(**{**SIZES, "vocab_size": len(TOKENS) + 2}, initializer_range=0.3, **more)


def write_causal(folder, *, template=TEMPLATE, modules=True):
    """Qwen3-Reranker as sentence-transformers reads it: a language model and a template."""
    torch.manual_seed(0)
    Qwen3ForCausalLM(_config()).save_pretrained(folder)
    tokenizer = make_tokenizer(single="$A", eos="<|im_end|>", length=96)
    tokenizer.add_tokens(["yes", "no"])
    tokenizer.padding_side = "left"
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    if not modules:
        return
    output = {"method": "forward", "method_output_name": "logits"}
    kinds = {"text": output} | ({"message": {**output, "format": "flat"}} if template else {})
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "text-generation",
            "modality_config": kinds,
            "module_output_name": "causal_logits",
        },
    )
    own = "sentence_transformers."
    write_json(
        folder / "modules.json",
        [
            {
                "idx": 0,
                "name": "0",
                "path": "",
                "type": f"{own}base.modules.transformer.Transformer",
            },
            {
                "idx": 1,
                "name": "1",
                "path": "1_LogitScore",
                "type": f"{own}cross_encoder.modules.logit_score.LogitScore",
            },
        ],
    )
    write_json(
        folder / "1_LogitScore" / "config.json",
        {"true_token_id": len(TOKENS), "false_token_id": len(TOKENS) + 1},
    )
    write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})


def write_scored_decoder(folder):
    """Qwen3 with a head of one number."""
    torch.manual_seed(0)
    Qwen3ForSequenceClassification(_config(num_labels=1)).save_pretrained(folder)
    tokenizer = make_tokenizer(single="$A", eos="<|im_end|>", length=96)
    tokenizer.save_pretrained(folder)
