"""Cuts the texts of the training pairs into lessons for distillation: texts, no pairs.

    python -m benchmarks.lab.builtin.lessons --shared DATA --pairs PAIRS --out LESSONS

PAIRS is what ``build_data`` wrote, DATA the folder it read. LESSONS gets one jsonl file per source
(``{"id": ..., "text": ...}``, in an order drawn by the seed), ``held-out.jsonl`` with texts of each
source that no other file holds, and ``LESSONS.json`` with the counts and what was dropped and why.
A lesson is a query, a sentence of a document, or its beginning. None touches a text of DATA's sts/,
beir/, classification/ or clustering/.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from benchmarks.lab.builtin.decontaminate import Benchmarks, read_benchmarks, read_jsonl
from benchmarks.lab.builtin.pairs import cut_at_sentence, looks_english, split_sentences, text_key
from retrieval.errors import MillpondError, SourceNotFoundError

MOST_LESSONS = {
    "snli": 20_000,
    "squad_sentences": 30_000,
    "medquad": 10_000,
    "medquad_claims": 16_000,
    "rqe_medical": 5_000,
    "wordnet_glosses": 10_000,
    "wordnet_examples": 10_000,
    "ontology_definitions": 8_000,
    "ontology_synonyms": 2_000,
    "debian_packages": 8_000,
    "debian_first_sentences": 6_000,
    "python_manual": 4_000,
    "scipy_manual": 2_500,
    "sklearn_manual": 2_500,
    "postgresql_manual": 2_500,
    "address_paragraphs": 12_000,
    "factbook_fields": 6_000,
}
"""Lessons of each source: short everyday sentences and biomedical texts before software."""

CHARS = (12, 480)
"""A shorter text says little; 480 characters are about 110 tokens."""

PARAGRAPH_SHARE = 0.35
HELD_OUT_SHARE = 0.01


def main(arguments: list[str] | None = None) -> int:
    """Cut every source that PAIRS holds; 0 when at least one lesson was written."""
    options = _parse(arguments)
    try:
        lessons, report = build_lessons(options.shared, options.pairs, options.seed)
    except MillpondError as error:
        print(f"lessons: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    for name, texts in lessons.items():
        write_lessons(options.out / f"{name}.jsonl", name, texts)
    report_path = options.out / "LESSONS.json"
    report_path.write_text(f"{json.dumps(report, indent=2)}\n", encoding="utf-8")
    return 0 if any(lessons.values()) else 1


def build_lessons(
    shared: Path, pairs: Path, seed: int
) -> tuple[dict[str, list[str]], dict[str, object]]:
    """Lessons by the name of their file, and the report.

    Raises:
        SourceNotFoundError: PAIRS holds no file of a source, or DATA no benchmarks.
    """
    names = [name for name in MOST_LESSONS if (pairs / f"{name}.jsonl").is_file()]
    if not names:
        raise SourceNotFoundError(f"{pairs} holds no pairs; make them with build_data --out")
    benchmarks = read_benchmarks(shared)
    seen: set[str] = set()
    lessons: dict[str, list[str]] = {}
    held_out: list[str] = []
    report: dict[str, object] = {"seed": seed, "missing": sorted(set(MOST_LESSONS) - set(names))}
    for name in names:
        dropped = Counter[str]()
        kept = choose(pairs / f"{name}.jsonl", name, seed, benchmarks, seen, dropped)
        held = round(len(kept) * HELD_OUT_SHARE)
        held_out += kept[:held]
        lessons[name] = kept[held:]
        print(f"{name}: {len(kept):,} lessons; dropped {dict(dropped)}", file=sys.stderr)
        report[name] = {"lessons": len(kept) - held, "held_out": held, "dropped": dict(dropped)}
    lessons["held-out"] = held_out
    return lessons, report


def choose(
    path: Path, name: str, seed: int, benchmarks: Benchmarks, seen: set[str], dropped: Counter[str]
) -> list[str]:
    """Distinct lessons of one source in a drawn order, at most ``MOST_LESSONS`` of them.

    ``seen`` holds the keys of the lessons of earlier sources, and gets those of this one.
    """
    dice = Random(f"{seed}/{name}")
    candidates = list(cut_pairs(path, dice))
    dice.shuffle(candidates)
    kept: list[str] = []
    for text in candidates:
        if len(kept) == MOST_LESSONS[name]:
            dropped["over the source's number"] = len(candidates) - len(kept) - dropped.total()
            break
        key = text_key(text)
        fault = "repeated" if key in seen else _find_fault(text) or benchmarks.find_overlap(text)
        seen.add(key)
        if fault:
            dropped[fault] += 1
        else:
            kept.append(text)
    return kept


def cut_pairs(path: Path, dice: Random) -> Iterator[str]:
    """Queries, negatives, and of each positive a drawn sentence or its beginning."""
    for record in read_jsonl(path):
        yield str(record["query"])
        negatives = record.get("negatives")
        yield from (str(text) for text in (negatives if isinstance(negatives, list) else []))
        positive = str(record["positive"])
        sentences = split_sentences(positive)
        if len(sentences) > 1 and dice.random() < PARAGRAPH_SHARE:
            yield cut_at_sentence(positive, CHARS[1])
        elif sentences:
            yield sentences[0] if dice.random() < 0.5 else dice.choice(sentences)


def _find_fault(text: str) -> str | None:
    """Why the text is no lesson, or None where it is."""
    if not CHARS[0] <= len(text) <= CHARS[1]:
        return "too short or too long"
    return None if looks_english(text) else "not English-looking"


def write_lessons(path: Path, name: str, texts: list[str]) -> None:
    """Write one jsonl file, whole or not at all."""
    beside = path.with_suffix(".partial")
    with beside.open("w", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            record = {"id": f"{name}-{number}", "text": text}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    beside.replace(path)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="lessons", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shared", type=Path, required=True, help="folder with sts/ and beir/")
    parser.add_argument("--pairs", type=Path, required=True, help="folder that build_data wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the jsonl files")
    parser.add_argument("--seed", type=int, default=1, help="of the draws and the order")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
