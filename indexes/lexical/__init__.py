"""The lexical arm of an index: BM25 over the words of its documents."""
