// The page: what is asked stands in the address, so that a search can be kept and sent on.

import { embed, listIndexes, search, setKey } from "./api.js";
import { button, byId, count, el, showNumber } from "./dom.js";
import { showFields } from "./fields.js";
import { summarizeRanks } from "./ranks.js";
import { focusFirst, markSentence, showResults } from "./results.js";
import { markByModel } from "./sentences.js";

const HITS = 10;
const MOST_HITS = 100;
const MOST_RETRIES = 5;
const KEPT_QUERIES = 50;
const MODE_NAMES = { hybrid: "meaning and words", dense: "meaning", lexical: "words" };

const field = Object.fromEntries(["query", "index", "other", "k", "mode", "filter"].map((id) => [id, byId(id)]));
const place = byId("results");
const queryVectors = new Map();
let indexes = null; // until the server has said what it has
let asking = null;
let submitted = false; // before that: searched for as soon as it is known
let read = null; // what was typed, when it was last read
let running = null;

/** Ask what the server has, once at a time; true where it was said. */
const start = () => (asking ??= readIndexes().finally(() => (asking = null)));

async function readIndexes() {
  hideProblems();
  say("Asking the server what it has …");
  try {
    indexes = await listIndexes();
  } catch (error) {
    showFailure(error, start);
    return false;
  }
  say("");
  showIndexes();
  return true;
}

/** Offer the indexes, and search for what was submitted meanwhile, or for what the address asks. */
function showIndexes() {
  byId("search").hidden = !indexes.length;
  if (!indexes.length) {
    byId("problem").hidden = false;
    byId("problem").replaceChildren(el("p", {}, "No index is served here. Start the server as ",
      el("code", {}, "millpond serve DIR"), " to search; ", el("a", { href: "docs" }, "its API"), " embeds texts without one."));
    return;
  }
  if (!readChoices()) return;
  if (submitted) run();
  else if (typed() !== read) showStart(); // somebody is typing
  else run(false);
  submitted = false;
}

/** Search for what the form says, now or when the server has said what it has. */
function submit() {
  submitted = !indexes;
  if (indexes) run();
  else start();
}

/** Fill the form from the address and search for what it asks. */
function readAddress() {
  const asked = new URLSearchParams(location.search);
  submitted = false;
  field.query.value = asked.get("q") ?? "";
  field.k.value = asked.get("k") ?? HITS;
  field.filter.value = asked.get("filter") ?? "";
  read = typed();
  if (!indexes?.length) return;
  stopRunning();
  hideProblems();
  if (readChoices()) run(false);
}

/** Choose the indexes and the mode that the address names; false, and said, where one is not there. */
function readChoices() {
  const asked = new URLSearchParams(location.search);
  fillSelect(field.index, indexes.map(({ name }) => name), asked.get("index") ?? indexes[0].name);
  fillOthers(asked.get("with") ?? "");
  fillModes(asked.get("mode") ?? "");
  showFields(chosenCards());
  const unknown = ["index", "with"].map((name) => asked.get(name)).filter((name) => name && !cardOf(name));
  if (!unknown.length) return true;
  submitted = false;
  const listing = indexes.map(({ name }) => name).join(", ");
  showFailure(new Error(`The address asks for the index ${unknown[0]}, which is not served here. Served: ${listing}.`));
  showStart();
  return false;
}

function writeAddress({ query, card, other, k, mode, filter }) {
  const asked = new URLSearchParams();
  if (query) asked.set("q", query);
  if (k !== HITS) asked.set("k", k);
  if (mode !== card.modes[0]) asked.set("mode", mode);
  if (filter) asked.set("filter", filter);
  if (card !== indexes[0]) asked.set("index", card.name);
  if (other) asked.set("with", other.name);
  const text = asked.size ? `?${asked}` : location.pathname;
  if (text !== (location.search || location.pathname)) history.pushState(null, "", text);
}

const typed = () => JSON.stringify([field.query.value, field.k.value, field.filter.value]);

function readForm() {
  const k = Math.round(Number(field.k.value));
  field.k.value = k >= 1 ? Math.min(k, MOST_HITS) : HITS;
  read = typed();
  return {
    query: field.query.value.trim(),
    card: cardOf(field.index.value),
    other: cardOf(field.other.value) ?? null,
    k: Number(field.k.value),
    mode: field.mode.value,
    filter: field.filter.value.trim(),
  };
}

function stopRunning() {
  running?.stop();
  running = null;
  place.removeAttribute("aria-busy");
}

/** Search for what the form says, or said. `kept` puts it into the history of the browser. */
async function run(kept = true, retries = 0, asked = readForm()) {
  const key = JSON.stringify(asked);
  if (running?.key === key && running.busy && !retries) return;
  stopRunning();
  hideProblems();
  if (kept) writeAddress(asked);
  document.title = asked.query ? `${asked.query} · millpond` : "millpond";
  if (!asked.query) {
    showStart();
    return;
  }
  const control = new AbortController();
  const mine = { key, busy: true, signal: control.signal, stop: () => control.abort() };
  running = mine;
  say("Searching …");
  place.setAttribute("aria-busy", "true");
  try {
    const embeddings = new Map();
    const cards = [asked.card, asked.other].filter(Boolean);
    const columns = await Promise.all(cards.map((card) => searchOne(card, asked, embeddings, mine.signal)));
    if (mine.signal.aborted) return;
    showColumns(columns, asked);
    mine.busy = false;
    place.removeAttribute("aria-busy"); // the results are whole; marks come when they do
    await markAll(columns, mine.signal);
  } catch (error) {
    control.abort(); // the other index of a pair need not go on
    if (running !== mine || error.name === "AbortError") return;
    showFailure(error, (again = 0) => run(false, again, asked), retries);
  } finally {
    mine.busy = false;
    if (running === mine) place.removeAttribute("aria-busy");
  }
}

/** One column; a filter that does not fit this index is its own problem, not the other's. */
async function searchOne(card, { query, k, mode: asked, filter }, embeddings, signal) {
  const mode = card.modes.includes(asked) ? asked : card.modes[0];
  const words = mode === "lexical";
  const { vector, seconds } = words ? {} : await embedQuery(card.model, query, embeddings, signal);
  const started = performance.now();
  try {
    const { hits } = await search(card.name, { query, vector, mode, k, filter }, signal);
    return { card, vector, mode, found: hits, seconds: { embedding: seconds, searching: (performance.now() - started) / 1000 } };
  } catch (error) {
    if (error.param !== "filter") throw error;
    return { card, vector, problem: "The filter does not fit this index.", filterProblem: error.message };
  }
}

/** The query's vector, asked for once a model, and how long that took; no time where it was kept. */
function embedQuery(model, query, embeddings, signal) {
  const key = `${model}\n${query}`;
  if (queryVectors.has(key)) return { vector: queryVectors.get(key) };
  if (!embeddings.has(key)) {
    const started = performance.now();
    embeddings.set(key, embed(model, [query], "query", signal).then(([vector]) => {
      if (queryVectors.size >= KEPT_QUERIES) queryVectors.delete(queryVectors.keys().next().value);
      queryVectors.set(key, vector);
      return { vector, seconds: (performance.now() - started) / 1000 };
    }));
  }
  return embeddings.get(key);
}

function showColumns(columns, { query, filter }) {
  const wrong = columns.filter((column) => column.filterProblem);
  if (wrong.length) showFilterProblem(wrong, columns.length);
  if (wrong.length === columns.length) {
    place.replaceChildren();
    say("");
    return;
  }
  const ranks = showResults(place, columns, query);
  const found = columns.filter((column) => column.found);
  const counts = found.map(({ card, found: hits }) => `${count(hits.length, "result")} in ${card.name}`).join(", ");
  const none = found.length && found.every((column) => !column.found.length);
  if (none) say(filter ? "No document matches the filter." : "The index holds no document.");
  else say(ranks ? `${counts}. ${summarizeRanks(ranks)}.` : counts && `${counts}.`);
}

/** Let each model choose the sentence to mark, one column after the other. */
async function markAll(columns, signal) {
  for (const [number, { card, vector, found }] of columns.entries()) {
    if (!found?.length || !vector) continue;
    const side = number ? "second" : "first";
    const note = place.querySelector(`.column.${side} .marking`);
    note.textContent = "Marked by shared words; asking the model …";
    try {
      await markByModel(card.model, vector, found, (hit, where) => markSentence(side, hit, where, "model"), signal);
      note.textContent = "Marked: the sentence nearest to the query.";
    } catch (error) {
      if (error.name === "AbortError") return;
      const why = error.status === 429 ? "the server is busy" : error.message;
      note.textContent = `Marked by shared words, because the model gave no answer: ${why}`;
    }
  }
}

function showStart() {
  say("");
  place.replaceChildren(el("ul", { class: "indexes" }, indexes.map((card) =>
    el("li", {}, el("b", {}, card.name), ` ${count(card.documents, "document")}, ${showNumber(card.dimension)} numbers each, by `,
      el("span", { class: "model" }, card.model)))));
}

function showFailure(error, again = null, retries = 0) {
  say("");
  if (error.status === 401) {
    byId("key-form").hidden = false;
    byId("key-says").textContent = error.message;
    byId("key").focus();
    return;
  }
  const box = byId("problem");
  box.hidden = false;
  box.replaceChildren(el("p", {}, error.message));
  if (!again) return;
  const clock = el("span", { class: "clock", "aria-hidden": "true" });
  const retry = button("Try again", () => again());
  box.append(el("p", {}, retry, " ", clock));
  if (error.retrySeconds && retries < MOST_RETRIES) countDown(error.retrySeconds, clock, () => again(retries + 1));
}

/** Wait, saying how long still, unless another search begins. */
function countDown(seconds, clock, then) {
  const waiting = running;
  const tick = (left) => {
    if (running !== waiting || !clock.isConnected) return;
    clock.textContent = `by itself in ${left} s`;
    if (left > 0) setTimeout(() => tick(left - 1), 1000);
    else then();
  };
  tick(seconds);
}

function showFilterProblem(wrong, columns) {
  const box = byId("filter-problem");
  const messages = new Map(wrong.map(({ card, filterProblem }) => [filterProblem, card.name]));
  const named = columns > 1 && wrong.length < columns;
  box.textContent = [...messages].map(([text, name]) => (named || messages.size > 1 ? `${name}: ${text}` : text)).join(" ");
  box.hidden = false;
  field.filter.setAttribute("aria-invalid", "true");
}

function hideProblems() {
  for (const id of ["problem", "filter-problem", "key-form"]) byId(id).hidden = true;
  field.filter.removeAttribute("aria-invalid");
}

function fillSelect(select, names, chosen, none = null) {
  const options = names.map((name) => el("option", { value: name }, name));
  select.replaceChildren(...(none ? [el("option", { value: "" }, none)] : []), ...options);
  if (names.includes(chosen)) select.value = chosen;
}

/** The modes that the chosen indexes offer; what one of two lacks, it answers in its own default. */
function fillModes(chosen) {
  const modes = chosenCards().map((card) => card.modes).sort((a, b) => b.length - a.length)[0];
  byId("mode-field").hidden = modes.length < 2;
  field.mode.replaceChildren(...modes.map((mode) => el("option", { value: mode }, MODE_NAMES[mode] ?? mode)));
  if (modes.includes(chosen)) field.mode.value = chosen;
}

function fillOthers(chosen) {
  byId("other-field").hidden = indexes.length < 2;
  fillSelect(field.other, indexes.map(({ name }) => name).filter((name) => name !== field.index.value), chosen, "nothing");
}

const chosenCards = () => [cardOf(field.index.value), cardOf(field.other.value)].filter(Boolean);
const cardOf = (name) => indexes.find((card) => card.name === name);
const say = (text) => (byId("status").textContent = text);

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
for (const select of [field.index, field.other]) {
  select.addEventListener("change", () => {
    if (select === field.index) fillOthers(field.other.value);
    fillModes(field.mode.value);
    showFields(chosenCards());
    run();
  });
}
field.mode.addEventListener("change", () => run());
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  try {
    setKey(byId("key").value.trim());
  } catch (error) {
    byId("key-says").textContent = error.message;
    return;
  }
  byId("key").value = "";
  start().then((known) => known && field.query.focus());
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    field.query.focus();
    field.query.select();
  } else if (event.key === "ArrowDown" && event.target === field.query && focusFirst(place)) event.preventDefault();
});
addEventListener("popstate", readAddress);
readAddress();
start();
