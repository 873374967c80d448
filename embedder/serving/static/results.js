// Result lists: one, or two side by side; opened and walked through with the keyboard.

import { button, byId, count, el, showScore, showSeconds, svg } from "./dom.js";
import { changeLabel, describeChange, drawLines, matchRanks } from "./ranks.js";
import { bestByWords, splitSentences } from "./sentences.js";

const SNIPPET = 300;
const BEFORE = 90;
const READ_FOR_MARKS = 20000;
const SHORT_VALUE = 60;
const FIRST_FIELDS = 4;
const PLACE_FIELDS = ["heading", "page"];
const SIDES = ["first", "second"];
const MOST_WORDS = 50;
const ARM_NAMES = { dense: "meaning", lexical: "words" };
const SCORE_NAMES = {
  hybrid: "Score: of meaning and words, each from 0 to 1 in this list, weighted",
  one: "Score: cosine (unless the index has another metric), or BM25 where words alone are searched",
};

const hitId = (side, rank) => `hit-${side}-${rank}`;
let observer = null;

/**
 * Show one or two columns {card, found, seconds, problem}; returns the ranks where there are two
 * lists, else null. Each hit's best sentence is marked by shared words at first.
 */
export function showResults(place, columns, query) {
  observer?.disconnect();
  const lists = columns.map((column) => column.found ?? []);
  const ranks = columns.length === 2 && columns.every((column) => column.found) ? matchRanks(...lists) : null;
  const board = el("div", { class: `board ${columns.length === 2 ? "pair" : "single"}` });
  board.style.setProperty("--rows", Math.max(1, ...lists.map((hits) => hits.length)));
  const sections = columns.map((column, number) => makeColumn(column, SIDES[number], ranks, query));
  const canvas = svg("svg", { class: "lines", "aria-hidden": "true", focusable: "false" });
  board.append(...(columns.length === 2 ? [sections[0], canvas, sections[1]] : sections));
  place.replaceChildren(board);
  board.addEventListener("keydown", (event) => walk(board, event));
  if (ranks) connect(board, ranks);
  return ranks;
}

/** Mark a sentence of a hit, in every list that shows it. */
export function markSentence(side, hit, place, by) {
  const node = byId(hitId(side, hit.rank));
  if (!node) return;
  const open = node.classList.contains("open");
  writeText(node.querySelector(".text"), hit.text, place, by, open, node.words);
  node.mark = { place, by };
}

/** Go to the first result; false where there is none. */
export function focusFirst(place) {
  const title = place.querySelector("button.title");
  title?.focus();
  return Boolean(title);
}

function makeColumn({ card, found, seconds, problem }, side, ranks, query) {
  const letter = ranks || problem ? el("span", { class: "side", "aria-hidden": "true" }, side === "first" ? "A" : "B") : null;
  const head = el("div", { class: "head" },
    el("h2", { id: `${side}-title` }, letter, card.name),
    el("p", { class: "soft" }, `${count(card.documents, "document")}, `, el("span", { class: "model" }, card.model)),
    el("p", { class: "soft" }, el("span", { class: "latency" }, describeSeconds(seconds)), " ", el("span", { class: "marking" })));
  const body = found?.length
    ? el("ol", { class: "hits", "aria-labelledby": `${side}-title` }, found.map((hit) => makeHit(hit, side, ranks, query, bestOfArms(found))))
    : el("p", { class: problem ? "notice" : "soft" }, problem ?? "No document matches.");
  return el("section", { class: `column ${side}`, "aria-labelledby": `${side}-title` }, head, body);
}

function describeSeconds({ embedding, searching } = {}) {
  if (searching === undefined) return "";
  const search = `searched in ${showSeconds(searching)}`;
  return embedding === undefined ? `Query embedded before, ${search}.` : `Query embedded in ${showSeconds(embedding)}, ${search}.`;
}

function makeHit(hit, side, ranks, query, best) {
  const change = ranks ? describeChange(ranks.get(hit.doc_id), side) : null;
  const id = hitId(side, hit.rank);
  const title = button(
    [el("span", { class: "rank" }, String(hit.rank)), " ", el("span", { class: "name" }, hit.title || hit.doc_id)],
    () => toggle(node), { class: "title", "aria-expanded": "false", "aria-controls": `${id}-body` });
  const text = el("p", { class: "text" });
  const node = el("li", { class: "hit", id, "data-doc": hit.doc_id },
    el("div", { class: "line-of-title" },
      el("h3", {}, title),
      el("span", { class: "score", title: SCORE_NAMES[hit.arms && Object.keys(hit.arms).length ? "hybrid" : "one"] },
        el("span", { class: "label" }, "score "), showScore(hit.score)),
      change ? changeLabel(change) : null),
    el("div", { id: `${id}-body` }, makeArms(hit, best), makePlace(hit), text, makeFields(hit)));
  const read = hit.text.slice(0, READ_FOR_MARKS);
  node.hit = hit;
  node.mark = { place: bestByWords(query, read, splitSentences(read)), by: "words" };
  node.words = findWords(hit.matched);
  writeText(text, hit.text, node.mark.place, "words", false, node.words);
  return node;
}

/** Where in its document a passage is, as "Guide > Install, page 12". */
function makePlace({ passage, metadata: { heading, page } }) {
  const parts = passage ? [heading, page == null ? null : `page ${page}`].filter(Boolean) : [];
  return parts.length ? el("p", { class: "place soft" }, parts.join(", ")) : null;
}

function makeFields(hit) {
  const fields = [["id", hit.doc_id, "late"]];
  Object.entries(hit.metadata).forEach(([name, value], place) => {
    if (value !== null && !(hit.passage && PLACE_FIELDS.includes(name))) fields.push([name, Array.isArray(value) ? value.join(", ") : String(value), place < FIRST_FIELDS ? "" : "late"]);
  });
  return el("dl", { class: "fields" }, fields.map(([name, value, late]) =>
    el("div", { class: late }, el("dt", {}, name),
      /^https?:\/\/\S+$/.test(value)
        ? el("dd", {}, el("a", { href: value, rel: "noopener noreferrer" }, value.length > SHORT_VALUE ? `${cut(value, 0, SHORT_VALUE)[0]}…` : value))
        : value.length > SHORT_VALUE
        ? [el("dd", { class: "short" }, `${cut(value, 0, SHORT_VALUE)[0]}…`), el("dd", { class: "whole" }, value)]
        : el("dd", {}, value))));
}

function toggle(node, open = !node.classList.contains("open")) {
  node.classList.toggle("open", open);
  node.querySelector(".title").setAttribute("aria-expanded", String(open));
  writeText(node.querySelector(".text"), node.hit.text, node.mark.place, node.mark.by, open, node.words);
}

/** Put a text, or the part around its marked sentence, into a node. */
function writeText(node, text, place, by, whole, words) {
  const start = whole || !place || place.end <= SNIPPET ? 0 : Math.max(0, place.start - BEFORE);
  const [, from, to] = whole ? [text, 0, text.length] : cut(text, start, start + SNIPPET);
  const [first, last] = place ? [Math.max(place.start, from), Math.min(place.end, to)] : [to, to];
  const parts = [from > 0 ? "… " : "", markWords(text.slice(from, first), words)];
  if (last > first) parts.push(el("mark", { class: `by-${by}` }, markWords(text.slice(first, last), words)));
  parts.push(markWords(text.slice(Math.max(first, last), to), words), to < text.length ? " …" : "");
  node.replaceChildren(...parts.flat().filter((part) => part !== ""));
}

/** A text as parts, each of the words in an element of its own. */
function markWords(text, words) {
  if (!words) return [text];
  const parts = [];
  let start = 0;
  for (const { 0: word, index } of text.matchAll(words)) {
    parts.push(text.slice(start, index), el("b", { class: "word" }, word));
    start = index + word.length;
  }
  return [...parts, text.slice(start)];
}

/** What finds the words that the lexical arm matched, whole ones where the script has blanks. */
function findWords(matched) {
  if (!matched?.length) return null;
  const shown = [...matched].sort((a, b) => b.length - a.length).slice(0, MOST_WORDS);
  const found = shown.map((word) => word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&"));
  const edge = "[\\p{Script=Latin}\\p{Script=Cyrillic}\\p{Script=Greek}\\p{N}]"; // of scripts with blanks
  return new RegExp(`(?<!${edge})(?:${found.join("|")})(?!${edge})`, "gu");
}

/** Two bars: how a hit stands in each arm, against the best of the list. */
function makeArms(hit, best) {
  if (!Object.keys(hit.arms ?? {}).length) return null;
  return el("div", { class: "arms" }, Object.entries(hit.arms).map(([name, { score, rank }]) => {
    const share = best[name] > 0 ? Math.max(0, Math.min(1, score / best[name])) : 0;
    const words = rank === null ? "not among its best" : `rank ${rank}`;
    const bar = svg("svg", { class: "bar", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "all", width: 100, height: 6, rx: 3 }),
      svg("rect", { class: name, width: 100 * share, height: 6, rx: 3 }));
    return el("span", { class: "arm", title: `${ARM_NAMES[name] ?? name}: ${showScore(score)}, ${words}` },
      el("span", { class: "arm-name" }, ARM_NAMES[name] ?? name), bar,
      el("span", { class: "arm-score" }, `${showScore(score)}${rank === null ? "" : `, ${words}`}`));
  }));
}

/** The highest score of each arm among the hits of a list. */
function bestOfArms(hits) {
  const best = {};
  for (const hit of hits) {
    for (const [name, { score }] of Object.entries(hit.arms ?? {})) best[name] = Math.max(best[name] ?? 0, score);
  }
  return best;
}

/** [part, from, to]: a part of a text, moved to blanks where some are near. */
function cut(text, start, end) {
  let [from, to] = [start, Math.min(end, text.length)];
  const blank = text.slice(from, from + 40).search(/\s/);
  if (from > 0 && blank >= 0) from += blank + 1;
  const last = text.slice(to - 40, to).search(/\s\S*$/);
  if (to < text.length && last >= 0) to += last - 40;
  // Half a surrogate pair is no character.
  if (/[\uDC00-\uDFFF]/.test(text[to] ?? "")) to -= 1;
  if (/[\uDC00-\uDFFF]/.test(text[from] ?? "")) from += 1;
  return [text.slice(from, to), from, to];
}

function walk(board, event) {
  const node = event.target.closest(".hit");
  if (!node || event.altKey || event.ctrlKey || event.metaKey) return;
  const list = [...node.parentElement.children];
  const at = list.indexOf(node);
  const moves = { ArrowDown: list[at + 1], ArrowUp: list[at - 1], Home: list[0], End: list.at(-1) };
  if (event.key === "Escape" && node.classList.contains("open")) {
    toggle(node, false);
    goTo(node);
  } else if (event.key === "Escape" || (event.key === "ArrowUp" && at === 0)) {
    byId("query").focus();
  } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const side = event.key === "ArrowLeft" ? "first" : "second";
    const other = [...board.querySelectorAll(`.column.${side} .hit`)];
    if (node.closest(`.column.${side}`) || !other.length) return;
    goTo(other.find((one) => one.dataset.doc === node.dataset.doc) ?? other[Math.min(at, other.length - 1)]);
  } else if (event.key in moves) goTo(moves[event.key]);
  else return;
  event.preventDefault();
}

function goTo(node) {
  const title = node?.querySelector(".title");
  title?.focus({ preventScroll: true });
  title?.closest(".hit").scrollIntoView({ block: "nearest" });
}

/** Draw the lines between two lists, again after every change of layout, and light up pairs. */
function connect(board, ranks) {
  const draw = () => board.isConnected && drawLines(board, ranks, hitId);
  observer = new ResizeObserver(() => requestAnimationFrame(draw));
  for (const node of [board, ...board.querySelectorAll(".hit")]) observer.observe(node);
  const light = (event) => {
    const doc = event.target.closest("[data-doc]")?.dataset.doc;
    for (const node of board.querySelectorAll("[data-doc]")) node.classList.toggle("on", node.dataset.doc === doc);
  };
  board.addEventListener("mouseover", light);
  board.addEventListener("focusin", light);
  board.addEventListener("mouseleave", light);
}
