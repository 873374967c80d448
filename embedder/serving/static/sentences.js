// Finds the sentence of a text that answers a query best: by shared words at once, and by the
// model when its vectors have come.

import { embed } from "./api.js";

// Before and after lines without a letter or digit (blank ones, rules), and before list items.
const BLOCK_END =
  /\n(?=[^\p{L}\p{N}\n]*(?:\n|$))|(?<=(?:^|\n)[^\p{L}\p{N}\n]*)\n|\n(?=\s*(?:[-*•]|>>>|\.\.\.|\d+[.)])\s)/gu;
const WORDY = /[\p{L}\p{N}]/u;
const SENTENCE_END = /[.!?…。！？]["')\]»”’]*\s*$/u;
const FRAGMENT_WORDS = 4;
const SENTENCES_A_TEXT = 30;
const SENTENCES_A_SEARCH = 200;
const SENTENCES_A_REQUEST = 40;
const KEPT_VECTORS = 4000;

const segmenter = (granularity) => globalThis.Intl?.Segmenter && new Intl.Segmenter(undefined, { granularity });
const bySentence = segmenter("sentence");
const byWord = segmenter("word");
const kept = new Map();

/**
 * Places {start, end} of the sentences of a text; lines that only wrap belong together. Headings,
 * signatures and the like, of few words and without a stop, count where there is nothing else.
 */
export function splitSentences(text) {
  const found = [];
  const fragments = [];
  let start = 0;
  for (const end of [...text.matchAll(BLOCK_END)].map((match) => match.index).concat(text.length)) {
    const block = text.slice(start, end).replace(/\s/g, " ");
    const pieces = bySentence ? [...bySentence.segment(block)] : [{ segment: block, index: 0 }];
    for (const { segment, index } of pieces) {
      if (!WORDY.test(segment)) continue;
      const first = start + index + segment.search(/\S/);
      const whole = SENTENCE_END.test(segment) || words(segment).length > FRAGMENT_WORDS;
      (whole ? found : fragments).push({ start: first, end: first + segment.trim().length });
    }
    start = end;
  }
  return found.length ? found : fragments;
}

function words(text) {
  const low = text.toLowerCase();
  if (!byWord) return low.match(/[\p{L}\p{N}]+/gu) ?? [];
  return [...byWord.segment(low)].filter((one) => one.isWordLike).map((one) => one.segment);
}

/** The sentence that shares most with the query, longer words counting more; null for none. */
export function bestByWords(query, text, sentences) {
  const wanted = new Set(words(query));
  let best = null;
  let most = 0;
  for (const place of sentences) {
    const shared = new Set(words(text.slice(place.start, place.end)).filter((word) => wanted.has(word)));
    const score = [...shared].reduce((sum, word) => sum + word.length, 0);
    if (score > most) [best, most] = [place, score];
  }
  return best;
}

/**
 * Call `mark(hit, place)` with the sentence nearest to the query for the model, best hits first.
 * Only so many sentences are asked for in a search; texts beyond keep what they have.
 */
export async function markByModel(model, queryVector, hits, mark, signal) {
  let left = SENTENCES_A_SEARCH;
  let waiting = [];
  const flush = async () => {
    await fetchVectors(model, waiting.flatMap((one) => one.sentences), signal);
    for (const { hit, places, sentences } of waiting) {
      const scores = sentences.map((sentence) => cosine(queryVector, kept.get(keyOf(model, sentence))));
      mark(hit, places[scores.indexOf(Math.max(...scores))]);
    }
    waiting = [];
  };
  for (const hit of hits) {
    const places = splitSentences(hit.text).slice(0, SENTENCES_A_TEXT);
    if (places.length === 1) mark(hit, places[0]);
    if (places.length < 2 || places.length > left) continue;
    left -= places.length;
    const sentences = places.map(({ start, end }) => hit.text.slice(start, end).replace(/\s+/g, " "));
    waiting.push({ hit, places, sentences });
    if (waiting.reduce((sum, one) => sum + one.sentences.length, 0) >= SENTENCES_A_REQUEST) await flush();
  }
  if (waiting.length) await flush();
}

const keyOf = (model, sentence) => `${model}\n${sentence}`;

async function fetchVectors(model, sentences, signal) {
  const missing = [...new Set(sentences)].filter((sentence) => !kept.has(keyOf(model, sentence)));
  if (!missing.length) return;
  const vectors = await embed(model, missing, "document", signal);
  // Only before new ones are put in, so that those of this search are all there afterwards.
  if (kept.size + missing.length > KEPT_VECTORS) {
    const needed = new Set(sentences.map((sentence) => keyOf(model, sentence)));
    for (const key of [...kept.keys()]) if (!needed.has(key)) kept.delete(key);
  }
  missing.forEach((sentence, place) => kept.set(keyOf(model, sentence), vectors[place]));
}

function cosine(one, other) {
  let inner = 0;
  let first = 0;
  let second = 0;
  for (let place = 0; place < one.length; place += 1) {
    inner += one[place] * other[place];
    first += one[place] ** 2;
    second += other[place] ** 2;
  }
  return first && second ? inner / Math.sqrt(first * second) : 0;
}
