"""The tiny encoders of the laboratory, in the folder layouts that their authors publish."""

from benchmarks.lab.layouts.encoders import (
    LAYOUTS,
    LONGEST,
    SMALL,
    WIDTH,
    change_json,
    word_pieces,
    write_json,
    write_layout,
)

__all__ = [
    "LAYOUTS",
    "LONGEST",
    "SMALL",
    "WIDTH",
    "change_json",
    "word_pieces",
    "write_json",
    "write_layout",
]
