"""Named plainly: published layouts against their authors' vectors, the table of docs/models.md.

Tiny random models in each layout are built in a temporary folder, and 20 queries and 20 documents
(short, long, cut) are embedded by ``load_encoder(FOLDER)`` and by ``SentenceTransformer(FOLDER)``,
or by the authors' recipe where that does not compute them, in float32 on the CPU. A real folder or
hub id that is named is compared too.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.lab.layouts import adapters, decoders, encoders
from embedder import Embedder, load_encoder
from retrieval import Vectors
from retrieval.scores import unit_rows

_TEXTS = 20
_WORDS = ("the", "mill", "grinds", "corn", "for", "a", "miller", "of", "another", "village")
_LENGTHS = (1, 3, 8, 20, 200)
"""Words of a text: the last is longer than any model here reads."""


@dataclass(frozen=True)
class Row:
    """How near two libraries' vectors of one model are.

    Attributes
    ----------
    engine : what computed the model here.
    reference : what computed it as its authors do.
    cosine : the mean over texts, of queries and of documents.
    difference : the largest absolute difference of a number, of queries and of documents.
    """

    layout: str
    engine: str
    reference: str
    cosine: tuple[float, float]
    difference: tuple[float, float]

    def __str__(self) -> str:
        queries, documents = (
            f"{cosine:.6f} | {difference:.0e}"
            for cosine, difference in zip(self.cosine, self.difference, strict=True)
        )
        return f"| {self.layout} | {self.engine} | {self.reference} | {queries} | {documents} |"


def make_texts(seed: int) -> list[str]:
    """Return 20 texts of 1 to 200 words."""
    choose = np.random.default_rng(seed)
    return [
        " ".join(choose.choice(_WORDS, _LENGTHS[number % len(_LENGTHS)]))
        for number in range(_TEXTS)
    ]


def compare_layout(layout: str, model: Path | str, reference: Any = None) -> Row:
    """Return how near our vectors of a model are to its authors'.

    Parameters
    ----------
    reference : a ``Recipe`` or a SentenceTransformer; by default the model as one.
    """
    from sentence_transformers import SentenceTransformer

    ours = load_encoder(str(model), device="cpu")
    theirs: Any = reference or SentenceTransformer(
        str(model), device="cpu", model_kwargs={"dtype": "float32"}
    )
    queries, documents = make_texts(0), make_texts(1)
    cosines, differences = zip(
        _compare(ours.encode_queries(queries), theirs.encode_query(queries)),
        _compare(ours.encode_documents(documents), theirs.encode_document(documents)),
        strict=True,
    )
    engine = "ours" if isinstance(ours, Embedder) else "sentence-transformers"
    reference = getattr(theirs, "name", "sentence-transformers")
    return Row(layout, engine, reference, cosines, differences)


def _compare(mine: Vectors, theirs: Vectors) -> tuple[float, float]:
    """Return the mean cosine and the largest difference of vectors (N, D), made unit vectors."""
    mine, theirs = unit_rows(mine), unit_rows(theirs)
    return float((mine * theirs).sum(axis=1).mean()), float(np.abs(mine - theirs).max())


def _layouts(root: Path) -> Iterator[tuple[str, Path | str, Any]]:
    """Yield each layout's title, its model, written just now, and its reference, if any."""
    for name, layout in decoders.LAYOUTS.items():
        yield name, decoders.write_layout(root / name, **layout), None
    yield "e5-mistral as an adapter", _with_library_files(root), None
    yield from adapters.list_adapters(root)
    for name in encoders.LAYOUTS:
        yield name, encoders.write_layout(name, root / name), None


def _with_library_files(root: Path) -> Path:
    """Save an adapter on the layout of e5-mistral with the base's other files beside it."""
    base = root / "e5-mistral"
    folder = adapters.write_adapter(root / "adapter", base)
    left = shutil.ignore_patterns("config.json", "model.safetensors")
    shutil.copytree(base, folder, ignore=left, dirs_exist_ok=True)
    pooling = Path("1_Pooling") / "config.json"
    (folder / pooling).parent.mkdir(exist_ok=True)
    shutil.copy(base / pooling, folder / pooling)
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; exit with 1 where a difference is above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", help="real models to compare too: folders or hub ids")
    parser.add_argument("--most", type=float, default=1e-5, help="the tolerance of a difference")
    asked = parser.parse_args(arguments)
    line = partial(print, flush=True)
    heads = ("cosine of queries", "difference", "cosine of documents", "difference")
    line(f"| {' | '.join(('layout', 'computed by', 'compared with', *heads))} |")
    line("|---|---|---|---|---|---|---|")
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="millpond-layouts-") as root:
        real = ((name, name, None) for name in asked.models)
        for layout, model, reference in chain(_layouts(Path(root)), real):
            row = compare_layout(layout, model, reference)
            worst = max(worst, *row.difference)
            line(row)
    raise SystemExit(int(worst > asked.most))


if __name__ == "__main__":
    main()
