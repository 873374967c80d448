"""The README.md of a saved model: what it is, how to load it, how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedder.models.bases import BASES
from embedder.models.manifest import Manifest
from embedder.models.st_layout import NOT_WHOLE
from embedder.variants import PAPER_MODELS

_HUB_LICENCES = {"Apache-2.0": "apache-2.0", "Gemma Terms of Use": "gemma"}
_METRICS = {
    "sts": ("STS", "cosine_spearman", "sts"),
    "ndcg": ("Retrieval", "ndcg_at_10", "beir"),
}
"""Scores of a training: MTEB's task and metric, and the field of the config that names the data."""
_UNLISTED = ("config", "parts", "data", "start")
"""Parts of a record that are too long for the table of facts."""


_OURS = """\
With millpond, where `MODEL_DIR` is this folder:

```sh
millpond index corpus.jsonl --out my-index --model MODEL_DIR
```

```python
from embedder import Embedder

model = Embedder.load("MODEL_DIR")
vectors = model.encode_documents(["a text", "another"])
```"""

_PLAIN = """\
With {libraries} alone, which gives the same vectors:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("MODEL_DIR")
vectors = model.encode_document(["a text", "another"])
```"""

_WITH_US = """\
With sentence-transformers 6 and millpond installed:

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("MODEL_DIR", trust_remote_code=True)
vectors = model.encode_document(["a text", "another"])
```

Modules of sentence-transformers' own do not give these vectors ({reason}), so
`modules.json` names millpond's. sentence-transformers 6 asks for `trust_remote_code=True`
wherever a model names a module of another package. No code of this folder is run: it holds
none, and its weights are safetensors. Without that argument:

```python
from embedder.models.sentence_transformers_module import load_sentence_transformer

model = load_sentence_transformer("MODEL_DIR")
```"""


def write_card(manifest: Manifest, *, needs_millpond: str = NOT_WHOLE) -> str:
    """Return the model card, made from the manifest alone.

    Parameters
    ----------
    needs_millpond : why sentence-transformers needs millpond for this model, "" where it does not.
    """
    spec = manifest.spec
    libraries = "sentence-transformers" + (" and peft" if manifest.has_adapter else "")
    library = (
        _WITH_US.format(reason=needs_millpond)
        if needs_millpond
        else _PLAIN.format(libraries=libraries)
    )
    return "\n".join(
        [
            *_front_matter(manifest),
            f"# {_base_name(manifest)}, {spec.pooling}+{spec.attention}",
            "",
            _describe(manifest),
            "",
            *_table(("", ""), _facts(manifest)),
            "",
            "## Use",
            "",
            _OURS,
            "",
            library,
            "",
            "## Training",
            "",
            *_training(manifest.record),
            "",
        ]
    )


def _front_matter(manifest: Manifest) -> list[str]:
    base = BASES.get(manifest.base.name)
    lines = ["---", "library_name: sentence-transformers", "pipeline_tag: sentence-similarity"]
    if base and base.licence in _HUB_LICENCES:
        lines.append(f"license: {_HUB_LICENCES[base.licence]}")
    name = manifest.base.name
    if not base and name.count("/") == 1 and not name.startswith("/"):  # a hub id
        lines.append(f"base_model: {name}")
    lines += ["tags:", "- millpond", "- sentence-transformers", "- embeddings"]
    return [*lines, *_model_index(manifest), "---", ""]


def _model_index(manifest: Manifest) -> Iterator[str]:
    """Yield the scores on held-out data as MTEB's metadata has them, in hundredths.

    None where a whitening was fitted after they were measured.
    """
    record = manifest.record
    scores = {} if "whitening" in record else record.get("scores") or {}
    held_out = (record.get("config") or {}).get("evaluate") or {}
    known = [name for name in _METRICS if name in scores]
    if not known:
        return
    yield "model-index:"
    yield f"- name: {_quote(f'{_base_name(manifest)} {manifest.spec.pooling}')}"
    yield "  results:"
    for name in known:
        task, metric, field = _METRICS[name]
        data = _quote(Path(str(held_out.get(field) or "held-out data")).name)
        yield f"  - task:\n      type: {task}"
        yield f"    dataset:\n      type: {data}\n      name: {data}"
        yield f"    metrics:\n    - type: {metric}\n      value: {100 * scores[name]:.4f}"


def _quote(text: str) -> str:
    """Return a text as YAML reads it back."""
    return json.dumps(text, ensure_ascii=False)


def _describe(manifest: Manifest) -> str:
    spec = manifest.spec
    if manifest.is_whole:
        held = "This folder holds all of its weights."
    elif manifest.has_adapter:
        held = "This folder holds the LoRA adapter; the base's own weights are not in it."
    else:
        held = "This folder holds the pooling's weights; the base's own are not in it."
    return (
        f"A text embedding model: the decoder {_base_name(manifest)} with {spec.pooling} pooling "
        f"and {spec.attention} attention, trained by millpond. "
        f"{held}"
    )


def _base_name(manifest: Manifest) -> str:
    name = manifest.base.name
    return Path(name).name if Path(name).is_absolute() else name


def _facts(manifest: Manifest) -> Iterator[tuple[str, object]]:
    spec, base = manifest.spec, manifest.base
    builtin = BASES.get(base.name)
    pair = (spec.pooling, spec.attention)
    paper = [name for name, named in PAPER_MODELS.items() if named == pair]
    yield "base", f"{_base_name(manifest)}" + (f", {builtin.summary}" if builtin else "")
    yield "licence of the base", builtin.licence if builtin else "see the base's own card"
    if builtin and builtin.notice:
        yield "notice", builtin.notice
    yield "revision of the base", base.revision or "as identified below"
    yield "identity of the base", f"`{base.identity}`"
    yield "layers", spec.base_layers or "all of the base"
    variant = f"{spec.pooling}+{spec.attention}"
    yield "variant", variant + (f" ({paper[0]} of arXiv 2409.02727)" if paper else "")
    yield "dimension", spec.dimension or base.width
    yield "vectors of length 1", "yes" if spec.normalize else "no"
    yield "longest input, tokens", spec.max_tokens
    yield "texts are read", "in lower case" if spec.lowercase else "as they are written"
    yield "query prompt", repr(spec.query_prompt) if spec.query_prompt else "none"
    yield "document prompt", repr(spec.document_prompt) if spec.document_prompt else "none"


def _training(record: Mapping[str, Any]) -> list[str]:
    rows = list(_flatten({k: v for k, v in record.items() if k not in _UNLISTED}))
    start = record.get("start")
    if start is not None:
        steps = start["record"].get("steps", "unknown")
        rows.append(("went on from", f"{start['trained_sha256'][:12]}, trained for {steps} steps"))
    data = [_data_row(source) for source in record.get("data", [])]
    if not rows and not data:
        return ["Nothing was recorded."]
    return [
        *(_table(("data", "pairs", "negatives", "weight of a pair", "SHA-256"), data)),
        *([""] if data else []),
        *_table(("what", "value"), rows),
        "",
        "`millpond.json` holds this and the rest of the record.",
    ]


def _data_row(source: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the row of one source of training pairs; digests are cut to 12 digits."""
    digests = ", ".join(digest[:12] for digest in source.get("sha256", {}).values())
    counts = (source.get(name, "") for name in ("pairs", "negatives", "weight"))
    return Path(str(source.get("path", ""))).name, *counts, digests


def _flatten(value: Any, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield dotted keys and plain values."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{key}[{index}]")
    elif isinstance(value, list):
        yield key, ", ".join(map(str, value))
    elif value is not None:
        yield key, value


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table, none where there are no rows."""
    lines = [_row(row) for row in rows]
    if lines:
        yield from (_row(head), "|---" * len(head) + "|", *lines)


def _row(cells: Iterable[object]) -> str:
    shown = (" ".join(str(cell).replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(shown)} |"
