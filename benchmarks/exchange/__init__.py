"""Results in the field's own files, in and out: mteb's, TREC's, beir's, model cards, CSV."""

from benchmarks.exchange.incoming import import_results
from benchmarks.exchange.outgoing import FORMATS, export_results, write_card

__all__ = ["FORMATS", "export_results", "import_results", "write_card"]
