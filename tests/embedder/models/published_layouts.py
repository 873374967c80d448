"""The tiny decoders of the laboratory, in the folder layouts of published embedding models."""

from benchmarks.lab.layouts.decoders import (
    INSTRUCT,
    LAYOUTS,
    TOKENS,
    write_json,
    write_layout,
)
from benchmarks.lab.layouts.decoders import SIZES as _SIZES
from benchmarks.lab.layouts.decoders import make_tokenizer as _tokenizer

__all__ = ["INSTRUCT", "LAYOUTS", "TOKENS", "_SIZES", "_tokenizer", "write_json", "write_layout"]
