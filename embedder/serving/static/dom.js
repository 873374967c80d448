// Small tools to put things on the page. Text reaches it as text nodes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";
const MINUS = "\u2212";

export const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== ""));
  return node;
}

/** A new element; children are nodes or texts. */
export const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** A new button that calls `act`. */
export function button(label, act, attributes = {}) {
  const node = el("button", { type: "button", ...attributes }, label);
  node.addEventListener("click", act);
  return node;
}

export const showNumber = (value) => value.toLocaleString("en");
export const showScore = (value) => value.toFixed(3).replace("-", MINUS);
export const showSigned = (value) => (value > 0 ? `+${value}` : `${MINUS}${-value}`);

/** Seconds in few characters: 4 ms, 1.3 s. */
export function showSeconds(seconds) {
  if (seconds < 0.9995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  return `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s`;
}

/** "1 result", "2 results". */
export const count = (number, noun) => `${showNumber(number)} ${noun}${number === 1 ? "" : "s"}`;
