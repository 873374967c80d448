// The ranking over all tasks, in groups that cannot be told apart; and tables of many rows.

const MANY_ROWS = 100;
const ROW_HEIGHT = 34;
const ROWS_AROUND = 12;

/** Rows of a table in a box that scrolls; of many rows only those in sight are on the page. */
function rowsInSight(box, body, columns, makeRow) {
  let items = [];
  let drawn = "";
  const spacer = (count) => {
    const cell = el("td", { colspan: columns });
    cell.style.setProperty("height", `${count * ROW_HEIGHT}px`);
    return el("tr", { "aria-hidden": "true", class: "spacer" }, cell);
  };
  const look = (force) => {
    if (items.length <= MANY_ROWS) {
      body.replaceChildren(...items.map(makeRow));
      return;
    }
    const height = box.clientHeight || 600;
    const start = Math.max(0, Math.floor(box.scrollTop / ROW_HEIGHT) - ROWS_AROUND);
    const end = Math.min(items.length, start + Math.ceil(height / ROW_HEIGHT) + 2 * ROWS_AROUND);
    if (!force && drawn === `${start} ${end}`) return;
    drawn = `${start} ${end}`;
    body.replaceChildren(spacer(start), ...items.slice(start, end).map(makeRow), spacer(items.length - end));
  };
  box.addEventListener("scroll", () => requestAnimationFrame(() => look(false)));
  window.addEventListener("beforeprint", () => body.replaceChildren(...items.map(makeRow)));
  window.addEventListener("afterprint", () => look(true));
  return (next) => {
    items = next;
    look(true);
  };
}

/** A box for a table that may have many rows, with a search for models where it has. */
function manyRows(label, table, count, onSearch) {
  const box = scroller(label, table);
  if (count <= MANY_ROWS) return { box, node: box };
  box.classList.add("tall");
  const input = el("input", { type: "search", placeholder: "part of a name", "aria-label": `Search models: ${label}` });
  const found = el("span", { class: "muted", "aria-live": "polite" });
  input.addEventListener("input", () => {
    const left = onSearch(input.value.trim().toLowerCase());
    box.scrollTop = 0;
    found.replaceChildren(input.value.trim() ? `${left.toLocaleString("en")} of ${count.toLocaleString("en")} models` : "");
  });
  const search = el("label", { class: "picker" }, el("span", {}, "Search models"), input);
  return { box, node: el("div", {}, el("div", { class: "controls" }, search, found), box) };
}

const hasText = (model, text) => data.models[model].name.toLowerCase().includes(text);

function rankingTable(ranking) {
  const body = el("tbody");
  const heads = ["Group", "Rank", `${ranking.level} of rank`, "Mean", "Model"];
  const table = el("table", { class: "leaderboard ranking" },
    el("thead", {}, el("tr", {}, heads.map((title) => el("th", { scope: "col", class: title === "Model" ? "name" : "score" }, title)))), body);
  const makeRow = ([model, low, high, group, mean]) => {
    const rank = ranking.ranks.get(model);
    const starts = group && (rank === 1 || ranking.groupAt[rank - 2] !== group);
    return el("tr", { class: starts ? "starts" : null }, el("td", { class: "score" }, group ? String(group) : DASH),
      el("td", { class: "score" }, String(rank)), el("td", { class: "score" }, `${low} to ${high}`),
      el("td", { class: "score" }, showScore(mean)),
      el("th", { scope: "row", class: "name" }, modelName(model)));
  };
  const { box, node } = manyRows("Ranking over all tasks", table, ranking.rows.length, (text) => {
    const left = ranking.rows.filter(([model]) => hasText(model, text));
    show(left);
    return left.length;
  });
  const show = rowsInSight(box, body, heads.length, makeRow);
  show(ranking.rows);
  return node;
}

function drawRanking() {
  const ranking = data.ranking;
  const host = byId("ranking");
  if (!ranking) {
    host.remove();
    return;
  }
  ranking.ranks = new Map(ranking.rows.map(([model], place) => [model, place + 1]));
  ranking.groupAt = ranking.rows.map(([, , , group]) => group);
  host.append(
    el("h3", {}, `Over all ${ranking.tasks} tasks`),
    ...ranking.text.map((line) => el("p", { class: "measure" }, line)),
    rankingTable(ranking),
    ranking.notes.length ? el("div", { class: "notes measure" }, ranking.notes.map((note) => el("p", {}, note))) : "",
  );
}
