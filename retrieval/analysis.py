"""Text as words: what an index stores for BM25, and what a query asks for.

One analyser serves the lexical arm of an index, the BM25 of ``bench`` and the one of ``mine``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from functools import cache, lru_cache
from itertools import chain, islice

from retrieval.errors import UnknownNameError

ANALYSER_VERSION = 1
"""Kept in the manifest; rises with every change that makes other words of the same text."""
NO_LANGUAGE = "none"
LONGEST_WORD = 200
DOTLESS_I = "\u0131"
DETECTED_DOCUMENTS = 1000
BLOCK_CHARACTERS = 1000
MAJORITY = 0.6
REMEMBERED_RUNS = 2**15

_JOINT = "._:/@\\\\'\u2019-"
_ASCII_RUN = re.compile(rf"[A-Za-z0-9]+(?:[{_JOINT}]+[A-Za-z0-9]+)*(?:\+\+|#)?")
_APOSTROPHES = re.compile("['\u2019]+")
_JOINTS = re.compile(r"[._:/@\\+#-]+")
_HUMPS = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_UNWRITTEN = "\u00ad\u0591-\u05bd\u0640\u064b-\u065f\u0670\u200c\u200d\u2060\ufeff"
"""Soft hyphens, joiners, and the vowel points of Hebrew and Arabic, which most texts leave out."""
_UNWRITTEN_ONE = re.compile(f"[{_UNWRITTEN}]")
_UNSPACED = (
    "\u0e01-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3"  # Hangul, whose particles follow without a blank
    "\u3005\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_SCRIPTS = re.compile(f"(?P<unspaced>[{_UNSPACED}]+)|[^{_UNSPACED}]+")
_MARK_BLOCKS = ((0x300, 0x2100), (0x3099, 0x309B), (0xA600, 0xAC00), (0xFB00, 0xFF00))

Words = tuple[str, ...]


class Analyser:
    """Turns text into the words that BM25 compares.

    Words are compared without case, in Unicode's form NFKC; the dotted and the dotless i are one.
    Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese are cut into characters and pairs of
    them. ``shutil.rmtree``, ``HTTP-404`` and ``camelCase`` are words as a whole and in parts.

    Parameters
    ----------
    language : one of ``list_languages()``: which endings are cut off, and which words a query
        leaves out. "none" for neither.

    Raises
    ------
    UnknownNameError : there is no such language.
    """

    def __init__(self, language: str = NO_LANGUAGE) -> None:
        check_language(language)
        self.language = language
        self._stem = _stemmer(language)
        self._is_stop_word = _stop_words(language)
        self._words = lru_cache(REMEMBERED_RUNS)(self._split)
        self._telling = lru_cache(REMEMBERED_RUNS // 16)(self._split_query)
        self._asked_for = lru_cache(4)(lambda query: frozenset(self.query_tokens(query)))

    def tokens(self, text: str) -> list[str]:
        """Return the words of a document, in order, as often as they are there."""
        found: list[str] = []
        for run, spaced in _runs(text):
            found += self._words(run) if spaced else (*(plain := _plain(run)), *_pairs(plain))
        return found

    def query_tokens(self, text: str) -> list[str]:
        """Return the words to look for, in order, as often as they are asked for.

        Words that say nothing ("the") are left out, unless the text holds no others.
        """
        telling: list[str] = []
        others: list[str] = []
        for run, spaced in _runs(text):
            if spaced:
                words, stop_words = self._telling(run)
                telling += words
                others += stop_words
            else:
                plain = _plain(run)
                telling += _pairs(plain) or plain
        return telling or others

    def matched(self, query: str, text: str) -> list[str]:
        """Return the words of a text that a word of the query matches, as they are written there.

        Each once, in the order in which they first come.
        """
        wanted = self._asked_for(query)
        found: dict[str, None] = {}
        for run, spaced in dict.fromkeys(_runs(text)):
            if spaced:
                if not wanted.isdisjoint(self._words(run)):
                    found[self._written(run, wanted)] = None
                continue
            found.update(dict.fromkeys(_covered(run, wanted)))
        return list(found)

    def _written(self, run: str, wanted: Set[str]) -> str:
        """Return the run, or the only part of it that is wanted."""
        parts = [part for part in _JOINTS.split(_APOSTROPHES.sub("-", run)) if part]
        hits = [part for part in parts if not wanted.isdisjoint(self._words(part))]
        return hits[0] if len(hits) == 1 else run

    def _split(self, run: str) -> Words:
        return tuple(word for word, _ in self._analyse(run))

    def _split_query(self, run: str) -> tuple[Words, Words]:
        found = self._analyse(run)
        telling = tuple(word for word, stop in found if not stop)
        return telling, tuple(word for word, stop in found if stop)

    def _analyse(self, run: str) -> list[tuple[str, bool]]:
        """Return the words of a run without blanks, and which of them are stop words."""
        found: list[tuple[str, bool]] = []
        composed = run if run.isascii() else _compose(run)
        words = composed.split()  # one sign may be several words in NFKC, such as U+FDFA
        pieces = chain.from_iterable(_drop_elided(_APOSTROPHES.split(word)) for word in words)
        for piece in pieces:
            parts = [part for part in _JOINTS.split(piece) if part]
            if len(parts) > 1 or piece.endswith(("++", "#")):
                found.append((self._fold(piece.strip("._:/@\\-")), False))
            for part in parts:
                found.append(self._word(part))
                humps = _HUMPS.split(part)
                if len(humps) > 1:
                    found += [self._word(hump) for hump in humps if len(hump) > 1]
        return found

    def _word(self, part: str) -> tuple[str, bool]:
        folded = self._fold(part)
        return self._stem(folded).replace(DOTLESS_I, "i"), self._is_stop_word(folded)

    def _fold(self, part: str) -> str:
        if self.language == "turkish":
            part = part.replace("I", DOTLESS_I).replace("\u0130", "i")
        return part.casefold().replace("i\u0307", "i")[:LONGEST_WORD]


def _drop_elided(pieces: list[str]) -> list[str]:
    """Return what is left between apostrophes: "l'homme", "dog's" and "don't" lose a letter."""
    kept = [piece for piece in pieces if len(piece) > 1]
    return kept if len(pieces) > 1 and kept else [piece for piece in pieces if piece]


def _runs(text: str) -> list[tuple[str, bool]]:
    """Return the words of a text as they are written, and whether their script has blanks."""
    if text.isascii():
        return [(run, True) for run in _ASCII_RUN.findall(text)]
    runs: list[tuple[str, bool]] = []
    for run in _unicode_run().findall(text):
        if run.isascii():
            runs.append((run, True))
        else:
            parts = _SCRIPTS.finditer(run)
            runs += [(part[0], part["unspaced"] is None) for part in parts]
    return runs


@cache
def _unicode_run() -> re.Pattern[str]:
    """Return what finds words, combining marks included: a vowel sign is no end of a word."""
    marks = "".join(
        character
        for character in map(chr, chain.from_iterable(range(*block) for block in _MARK_BLOCKS))
        if unicodedata.category(character) in ("Mn", "Mc")
    )
    word = rf"[\w{marks}{_UNWRITTEN}]"
    return re.compile(rf"{word}+(?:[{_JOINT}]+{word}+)*(?:\+\+|#)?")


def _compose(run: str) -> str:
    # Presentation forms of Hebrew and Arabic hold vowel points, which NFKC sets free.
    return _UNWRITTEN_ONE.sub("", unicodedata.normalize("NFKC", _UNWRITTEN_ONE.sub("", run)))


def _plain(run: str) -> str:
    """Return a run of a script without blanks, composed; what is no letter then is left out."""
    return "".join(_compose(run).casefold().split())


def _pairs(run: str) -> list[str]:
    return [run[place : place + 2] for place in range(len(run) - 1)]


def _covered(run: str, wanted: Set[str]) -> Iterator[str]:
    """Yield the parts of a run that wanted pairs, or a wanted single character, cover."""
    covered = [False] * len(run)
    for place in range(len(run)):
        for length in (1, 2):
            if _plain(run[place : place + length]) in wanted:
                covered[place : place + length] = [True] * len(run[place : place + length])
    start = 0
    for place, inside in enumerate([*covered, False]):
        if not inside:
            if place > start:
                yield run[start:place]
            start = place + 1


def list_languages() -> tuple[str, ...]:
    """Return the languages that an analyser knows, and "none"."""
    import Stemmer

    names = (name for name in Stemmer.algorithms() if "porter" not in name)
    return (*sorted(names), NO_LANGUAGE)


def check_language(language: str) -> None:
    """Raise UnknownNameError for a language that is not one of ``list_languages()``."""
    if language != NO_LANGUAGE and language not in list_languages():
        raise UnknownNameError("language", language, list_languages())


def _stemmer(language: str) -> Callable[[str], str]:
    """Return what cuts the endings of words off."""
    if language == NO_LANGUAGE:
        return str
    import Stemmer

    stem: Callable[[str], str] = Stemmer.Stemmer(language, 0).stemWord
    return stem


_ENGLISH_LIST = """
i me my mine myself we us our ours ourselves you your yours yourself yourselves
he him his himself she her hers herself it its itself they them their theirs themselves
what which who whom whose when where why how this that these those
am is are was were be been being have has had having do does did doing done
can could will would shall should may might must cannot
a an the and but if or because as until while of at by for with about against between into
through during before after above below to from up down in out on off over under again further
then once here there all any both each few more most other some such no nor not only own same
so than too very just also
"""
_ENGLISH_STOP_WORDS = frozenset(_ENGLISH_LIST.split())
"""Pronouns, question words, auxiliaries, prepositions: tantivy's English list has 33 words, none of
them "how", "do" or "i", which decide what a question finds where documents hold few of them."""


def _stop_words(language: str) -> Callable[[str], bool]:
    """Return what knows the stop words; without a list for the language there are none."""
    import tantivy

    if language == "english":
        return _ENGLISH_STOP_WORDS.__contains__
    try:
        chosen = tantivy.Filter.stopword(language)
        builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw()).filter(chosen)
    except ValueError:
        return lambda word: False
    analyser = builder.build()
    return lambda word: not analyser.analyze(word)


def detect_language(texts: Iterable[str]) -> str:
    """Return the language of most of the first 1,000 texts; "none" where none has a majority.

    Texts are read in blocks of 1,000 characters or more, since a short one says little.
    """
    import py3langid

    votes: Counter[str] = Counter()
    for block in _blocks(islice(texts, DETECTED_DOCUMENTS)):
        votes[_LANGUAGES.get(py3langid.classify(block)[0], NO_LANGUAGE)] += 1
    if not votes:
        return NO_LANGUAGE
    language, count = votes.most_common(1)[0]
    return language if count >= MAJORITY * votes.total() else NO_LANGUAGE


def _blocks(texts: Iterable[str]) -> Iterator[str]:
    block = ""
    for text in texts:
        block = f"{block} {text[: 10 * BLOCK_CHARACTERS]}"
        if len(block) >= BLOCK_CHARACTERS:
            yield block
            block = ""
    if any(map(str.isalpha, block)):
        yield block


_LANGUAGE_LIST = """
ar:arabic hy:armenian eu:basque ca:catalan cs:czech da:danish nl:dutch en:english eo:esperanto
et:estonian fi:finnish fr:french de:german el:greek hi:hindi hu:hungarian id:indonesian ga:irish
it:italian lt:lithuanian ne:nepali no:norwegian fa:persian pl:polish pt:portuguese ro:romanian
ru:russian sr:serbian es:spanish sv:swedish ta:tamil tr:turkish
"""
_LANGUAGES = dict(pair.split(":") for pair in _LANGUAGE_LIST.split())
"""By the ISO 639-1 codes that the detector answers with."""
