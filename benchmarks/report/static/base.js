// The data, and small tools to put it on the page. Text reaches the page as text nodes only.

const byId = (id) => document.getElementById(id);
const readJson = (id) => JSON.parse(byId(id).textContent);
const data = readJson("report-data");
const SVG = "http://www.w3.org/2000/svg";
const DASH = "–";
const MINUS = "−";
const PLURALS = { retrieval: "queries", sts: "pairs", classification: "texts", clustering: "splits" };
const SINGULARS = { retrieval: "query", sts: "pair", classification: "text", clustering: "split" };
const TITLES = {
  retrieval: "Retrieval",
  sts: "Semantic similarity (STS)",
  classification: "Classification",
  clustering: "Clustering",
  reranking: "Reranking",
  pair_classification: "Pair classification",
  multilabel_classification: "Multilabel classification",
  bitext_mining: "Bitext mining",
  summarization: "Summarization",
  other: "Other",
};
const MANY_NAMES = 20;

const blocks = new Map();

/** The item scores of a task, parsed when they are first asked for. */
function itemsOf(task) {
  if (!blocks.has(task)) blocks.set(task, readJson(`task-${task}`));
  return blocks.get(task);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false || value === undefined) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== ""));
  return node;
}

const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** A model's name, which may break after a colon, plus or comma; the variant stands out. */
function modelName(number) {
  const name = data.models[number].name;
  const pieces = name.split(/(?<=[:+,/])/);
  const base = name.includes(":") ? pieces.findIndex((piece) => piece.endsWith(":")) : -1;
  const parts = pieces.map((piece, place) => [
    place <= base ? el("span", { class: "base" }, piece) : piece,
    el("wbr"),
  ]);
  const mark = data.models[number].imported ? el("span", { class: "imported", title: "scores made by another program" }, " imported") : null;
  return el("span", { class: "model" }, parts, mark);
}

/** Names for tight places: without the base where all that is left still differs. */
const shortNames = (() => {
  const full = data.models.map((model) => model.name);
  const cut = full.map((name) => name.slice(name.indexOf(":") + 1));
  return cut.map((name, place) => (cut.filter((one) => one === name).length > 1 ? full[place] : name));
})();

const clip = (text, size) => (text.length <= size ? text : `${text.slice(0, size - 1)}…`);
const fixed = (value, digits) => value.toFixed(digits).replace("-", MINUS);

function showScore(value, digits = 3) {
  return value === null || value === undefined ? DASH : fixed(value, digits);
}

function showSigned(value, digits = 3) {
  if (value === null || value === undefined) return DASH;
  const text = fixed(value, digits);
  return value > 0 && Number(value.toFixed(digits)) !== 0 ? `+${text}` : text;
}

function showP(value) {
  if (value === null || value === undefined) return "no test";
  if (value < 0.001) return "p <.001";
  return `p ${value >= 0.9995 ? "1" : value.toFixed(3).slice(1)}`;
}

/** A quantity in few characters: 12.3k, 135M, 0.45. */
function showAmount(value) {
  const size = Math.abs(value);
  for (const [factor, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= factor * 0.9995) return `${Number((value / factor).toPrecision(3))}${unit}`;
  }
  return String(Number(value.toPrecision(3)));
}

const count = (number, taskType) =>
  `${number.toLocaleString("en")} ${(number === 1 ? SINGULARS : PLURALS)[taskType]}`;

/** A labelled select; `choices` are [value, text]. */
function picker(label, choices, value, onPick) {
  const box = el(
    "select",
    {},
    choices.map(([key, text]) => el("option", { value: key, selected: String(key) === String(value) }, text)),
  );
  box.addEventListener("change", () => onPick(box.value));
  const node = el("label", { class: "picker" }, el("span", {}, label), box);
  return { node, box };
}

/** A wide table or chart that scrolls by itself, also with the keyboard. */
function scroller(label, ...children) {
  return el("div", { class: "scroller", role: "region", "aria-label": label, tabindex: "0" }, children);
}

const taskTypeOf = (task) => data.task_types.find((taskType) => taskType.name === data.tasks[task].task_type);
const tableOf = (task) => taskTypeOf(task).tasks.find((one) => one.name === data.tasks[task].name);

/** What is chosen under "Two models"; other sections may set it. */
const choice = { task: 0, first: 0, second: 1, listeners: [] };

function choose(change) {
  Object.assign(choice, change);
  choice.listeners.forEach((listener) => listener());
}

/** Call `draw` with the width of a node, again when that changes. */
function onWidth(node, draw) {
  let last = 0;
  const look = () => {
    const width = Math.floor(node.clientWidth);
    if (width > 0 && width !== last) {
      last = width;
      draw(width);
    }
  };
  new ResizeObserver(() => requestAnimationFrame(look)).observe(node);
  return () => {
    last = 0;
    look();
  };
}
