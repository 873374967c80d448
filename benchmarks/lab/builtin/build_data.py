"""Builds the training pairs of the built-in model from permissive sources only.

    python -m benchmarks.lab.builtin.build_data --shared DATA --out PAIRS

DATA is a folder of your own with train/, sts/ and beir/. PAIRS gets one jsonl file per source
(query, positive, negatives) and ``SOURCES.json`` with the rows, licence, origin and sha256 of each
file, and what was dropped and why. Debian packages are downloaded and unpacked, never installed; a
source that cannot be fetched is skipped with its reason. Nothing that the model is judged on gets
in: see ``decontaminate``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.lab.builtin.decontaminate import Benchmarks, read_benchmarks
from benchmarks.lab.builtin.pairs import Pair, Sieve
from benchmarks.lab.builtin.sources import affairs, debian, manuals, ontologies, shared, wordnet
from benchmarks.lab.builtin.sources.apt import Workplace
from retrieval.errors import MillpondError, UnknownNameError


@dataclass(frozen=True)
class Source:
    """One file to build: who may use it, where it is from, and what yields its pairs."""

    licence: str
    origin: str
    build: Callable[[Workplace], Iterator[Pair]]
    note: str = ""
    package: str | None = None


def _manual(package: str, folder: str, licence: str, note: str = "") -> Source:
    """A source that reads the HTML manual of a Debian package."""
    build = partial(manuals.read_manual, package=package, folder=f"usr/share/doc/{folder}")
    return Source(licence, f"Debian package {package}", build, note, package)


_DESCRIPTIONS = Source(
    "as each package's debian/ packaging: mostly GPL-2+ or the licence of the program (MIT, BSD)",
    "apt's Translation-en list, one stanza a package",
    debian.packages,
    "Debian states no licence for the list as a whole; the descriptions are part of the packaging "
    "of free software, so none is under non-free terms, but many are under copyleft ones.",
)
_WORDNET = Source(
    "WordNet 3.0 (Princeton): use, change and redistribution for any purpose",
    "Debian package wordnet-base",
    wordnet.glosses,
    package="wordnet-base",
)
_OBO = Source(
    "CC BY 3.0 or public domain, by the package's copyright file",
    f"Debian package emboss-data, {', '.join(ontologies.FILES)} of 2012-2013",
    ontologies.definitions,
    "Gene Ontology, ChEBI, Pathway Ontology: CC BY; Sequence Ontology: public domain. eco.obo of "
    "the same package is GPL-3+ and is not read.",
    "emboss-data",
)
_MEDQUAD = Source(
    "CC BY 4.0",
    "shared train/medquad.jsonl",
    shared.medquad,
    "sentences that 12 answers or more share are taken out of every answer, and answers of which "
    "nothing is left (3,100, mostly lists of links) are left out before the counts below",
)

_SQUAD = Source(
    "CC BY-SA 4.0",
    "shared train/squad_nqg_sentence.jsonl",
    shared.squad_sentences,
    "lower-cased upstream: punctuation is mended, capitals of names are lost",
)
_ADDRESSES = Source(
    "public domain (works of the United States' government); the package MIT",
    f"package {affairs.ADDRESSES}, addresses since {affairs.FIRST_YEAR}",
    affairs.address_paragraphs,
    package=affairs.ADDRESSES,
)
_FACTBOOK = Source(
    _ADDRESSES.licence,
    f"package {affairs.FACTBOOK}",
    affairs.factbook_fields,
    package=affairs.FACTBOOK,
)

SOURCES: dict[str, Source] = {
    "squad_sentences": _SQUAD,
    "squad_rewordings": replace(_SQUAD, build=shared.squad_rewordings),
    "medquad": _MEDQUAD,
    "medquad_claims": replace(_MEDQUAD, build=shared.medquad_sentences),
    "snli": Source("CC BY-SA 4.0", "shared train/snli_devtest.jsonl", shared.snli),
    "rqe_medical": Source("CC BY 4.0", "shared train/rqe_medical.jsonl", shared.rqe),
    "debian_packages": _DESCRIPTIONS,
    "debian_first_sentences": replace(_DESCRIPTIONS, build=debian.first_sentences),
    "wordnet_glosses": _WORDNET,
    "wordnet_examples": replace(_WORDNET, build=wordnet.examples),
    "ontology_definitions": _OBO,
    "ontology_synonyms": replace(_OBO, build=ontologies.synonyms),
    "python_manual": _manual(
        "python3.11-doc",
        "python3.11/html",
        "PSF-2.0",
        "the python-stdlib demo corpus is docstrings of the same library: not a zero-shot test",
    ),
    "scipy_manual": _manual("python-scipy-doc", "python-scipy-doc", "BSD-3-Clause"),
    "sklearn_manual": _manual("python-sklearn-doc", "python-sklearn-doc", "BSD-3-Clause"),
    "postgresql_manual": _manual(
        "postgresql-doc-15", "postgresql-doc-15/html", "PostgreSQL licence (BSD-like)"
    ),
    "address_paragraphs": _ADDRESSES,
    "address_rewordings": replace(_ADDRESSES, build=affairs.address_rewordings),
    "factbook_fields": _FACTBOOK,
    "factbook_rewordings": replace(_FACTBOOK, build=affairs.factbook_rewordings),
}

LEFT_OUT = {
    "multi30k_captions, quora_dup, twitter_url_para": "non-commercial terms",
    "scitail_devtest, rte_train": "licence unknown",
    "dict-gcide, dict-foldoc": "GPL and GFDL dictionaries; WordNet covers the ground",
    "manpages, manpages-dev": "licences differ page by page",
    "python-biopython-doc": "one page in HTML; the rest are data files",
    "r-bioc-go.db": "the Gene Ontology again, in another form",
    "WordNet, one definition of a sense -> its other one": "adds a fact more often than it repeats",
    "scifact_train": "a SciFact score would no longer be zero-shot",
    "doc-rfc-std, linux-doc": "non-free; GPL-2 without permissive parts",
    "public-domain Bible translations": "verse pairs are paraphrases, but of an archaic register",
}
"""Sources that were looked at and not taken."""


def main(arguments: list[str] | None = None) -> int:
    """Build what was asked for; 0 when at least one file was written."""
    options = _parse(arguments)
    try:
        names = choose_sources(options.only)
        benchmarks = read_benchmarks(options.shared)
    except MillpondError as error:
        print(f"build_data: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="millpond-data-") as temporary:
        workplace = Workplace(options.shared.resolve(), options.scratch or Path(temporary))
        report = {name: build_one(name, workplace, benchmarks, options.out) for name in names}
    write_report(options.out / "SOURCES.json", report)
    return 0 if any("sha256" in entry for entry in report.values()) else 1


def choose_sources(only: list[str] | None) -> list[str]:
    """Names of the sources to build, in the order of ``SOURCES``.

    Raises:
        UnknownNameError: ``only`` names a source that does not exist.
    """
    unknown = sorted(set(only or ()) - set(SOURCES))
    if unknown:
        raise UnknownNameError("source", unknown[0], SOURCES)
    return [name for name in SOURCES if not only or name in only]


def build_one(
    name: str, workplace: Workplace, benchmarks: Benchmarks, out: Path
) -> dict[str, object]:
    """Write ``NAME.jsonl`` and return its entry of ``SOURCES.json``, or why it was skipped."""
    source, sieve, overlaps = SOURCES[name], Sieve(), Counter[str]()
    entry: dict[str, object] = {"licence": source.licence, "origin": source.origin}
    path = out / f"{name}.jsonl"
    try:
        pairs = benchmarks.clean(sieve(source.build(workplace)), overlaps)
        rows = write_pairs(path, pairs)
    except MillpondError as error:
        print(f"{name}: skipped: {error}", file=sys.stderr)
        return {**entry, "skipped": str(error)}
    if source.package:
        entry["package_file"] = workplace.packages[source.package]
    dropped = dict((sieve.dropped + overlaps).most_common())
    print(f"{name}: {rows:,} pairs; dropped {dropped}", file=sys.stderr)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {**entry, "note": source.note, "rows": rows, "sha256": digest, "dropped": dropped}


def write_report(path: Path, report: dict[str, dict[str, object]]) -> None:
    """Write ``SOURCES.json``; files that only an earlier build made keep their entry."""
    files = json.loads(path.read_text(encoding="utf-8"))["files"] if path.exists() else {}
    for name, entry in report.items():
        if "sha256" in entry or name not in files:
            files[name] = entry
    ordered = {name: files[name] for name in SOURCES if name in files}
    text = json.dumps({"files": ordered, "left_out": LEFT_OUT}, indent=2, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def write_pairs(path: Path, pairs: Iterator[Pair]) -> int:
    """Write the pairs as jsonl, whole or not at all; returns their number."""
    partial_path = path.with_suffix(".partial")
    rows = 0
    try:
        with partial_path.open("w", encoding="utf-8") as file:
            for pair in pairs:
                file.write(json.dumps(pair.as_record(), ensure_ascii=False) + "\n")
                rows += 1
        partial_path.replace(path)
    finally:
        partial_path.unlink(missing_ok=True)
    return rows


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="build_data", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--shared", type=Path, required=True, help="folder with train/, sts/, beir/"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the jsonl files")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of: {', '.join(SOURCES)}")
    parser.add_argument("--scratch", type=Path, help="keep unpacked Debian packages here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
