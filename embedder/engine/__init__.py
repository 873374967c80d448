"""How texts become vectors fast: packed batches, tokenising ahead, int8."""
