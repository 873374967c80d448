// How the ranks of two result lists differ, in words and as lines between them.

import { byId, el, showSigned, svg } from "./dom.js";

/** Where each document stands: Map of doc_id to {first, second}, ranks or undefined. */
export function matchRanks(first, second) {
  const ranks = new Map();
  for (const [side, hits] of [["first", first], ["second", second]]) {
    for (const hit of hits) ranks.set(hit.doc_id, { ...ranks.get(hit.doc_id), [side]: hit.rank });
  }
  return ranks;
}

/** What to say beside a hit of one side: {kind, sign, words}; null where nothing needs saying. */
export function describeChange({ first, second }, side) {
  if (side === "first") {
    return second === undefined ? { kind: "gone", sign: "gone", words: "not in the other list" } : null;
  }
  if (first === undefined) return { kind: "new", sign: "new", words: "not in the first list" };
  const up = first - second;
  if (!up) return { kind: "same", sign: "=", words: "same rank in both" };
  const words = `${up > 0 ? "up" : "down"} ${Math.abs(up)}, from rank ${first}`;
  return { kind: up > 0 ? "up" : "down", sign: showSigned(up), words };
}

/** The label of a change: the sign for the eye, the words for a screen reader and the pointer. */
export function changeLabel(change) {
  return el("span", { class: `change ${change.kind}`, title: change.words },
    el("span", { "aria-hidden": "true" }, change.sign), el("span", { class: "unseen" }, `, ${change.words}`));
}

/** One sentence about the whole. */
export function summarizeRanks(ranks) {
  const both = [...ranks.values()].filter(({ first, second }) => first && second);
  const same = both.filter(({ first, second }) => first === second).length;
  const gone = [...ranks.values()].filter(({ second }) => second === undefined).length;
  const fresh = ranks.size - both.length - gone;
  return `${both.length} in both lists, ${same} of them at the same rank; ${gone} gone, ${fresh} new`;
}

/** Draw a line for each document that is in both lists; call again when the layout has changed. */
export function drawLines(board, ranks, ids) {
  const canvas = board.querySelector("svg.lines");
  const frame = canvas.getBoundingClientRect();
  canvas.replaceChildren();
  if (!frame.width) return;
  canvas.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
  for (const [doc, { first, second }] of ranks) {
    if (!first || !second) continue;
    const [from, to] = ["first", "second"].map((side) => {
      const box = byId(ids(side, side === "first" ? first : second)).querySelector(".title").getBoundingClientRect();
      return box.top + Math.min(box.height / 2, 14) - frame.top;
    });
    const { kind } = describeChange({ first, second }, "second");
    const end = frame.width - 7;
    const bend = frame.width * 0.45;
    canvas.append(
      svg("g", { class: `line ${kind}`, "data-doc": doc },
        svg("path", { d: `M0 ${from} C${bend} ${from} ${end - bend} ${to} ${end} ${to}` }),
        svg("path", { class: "head", d: `M${end} ${to - 4} l7 4 l-7 4 z` })),
    );
  }
}
