// The fields that a filter can name, as a hint below the filter box.

import { button, byId, el } from "./dom.js";

const SHOWN_FIELDS = 12;
const KEYWORDS = new Set(["and", "or", "not", "in", "contains", "true", "false", "null"]);

/** The fields that can be filtered; a click puts the name into the filter. */
export function showFields(cards) {
  const types = Object.entries(Object.assign({}, ...cards.map(({ fields }) => fields)));
  const names = types.slice(0, SHOWN_FIELDS).map(([name, type]) =>
    button([name, " ", el("span", { class: "soft" }, type)], () => addToFilter(name), { class: "name", title: `Put ${name} into the filter` }));
  const more = types.length > SHOWN_FIELDS ? el("span", {}, `and ${types.length - SHOWN_FIELDS} more.`) : null;
  const how = el("span", {}, "Such as ", el("code", {}, example(types)), "; also ",
    el("code", {}, "!= < in [...] contains and or not"), ".");
  const nothing = "The documents have no fields to filter by.";
  byId("filter-hint").replaceChildren(...(names.length ? ["Fields: ", ...names, ...(more ? [more] : []), how] : [nothing]));
}

function example(types) {
  if (!types.length) return "";
  const [name, type] = types[0];
  const literals = { bool: "== true", int: ">= 1", float: ">= 0.5", date: '>= "2020-12-31"', string: '== "..."' };
  return `${quoteName(name)} ${literals[type] ?? 'contains "..."'}`;
}

/** A field name as filters write it. */
function quoteName(name) {
  const plain = /^[A-Za-z_][\w.-]*$/.test(name) && !KEYWORDS.has(name);
  return plain ? name : `\`${name.replaceAll("`", "``")}\``;
}

function addToFilter(name) {
  const box = byId("filter");
  const had = box.value.trimEnd();
  box.value = `${had}${had && !/\b(and|or|not)$|\($/.test(had) ? " and" : ""}${had ? " " : ""}${quoteName(name)} `;
  box.focus();
}
