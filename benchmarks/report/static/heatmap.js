// All pairs of models on one task, or over a task type: difference and corrected p.

/** The pair as seen from `model`: its difference to `other`, and the interval turned with it. */
function pairOf(pairs, model, other) {
  const found = pairs.find(
    (one) => (one.first === model && one.second === other) || (one.first === other && one.second === model),
  );
  if (!found || found.first === model) return found;
  const turned = { ...found };
  const negate = (value) => (value === undefined ? undefined : 0 - value);
  turned.difference = negate(found.difference);
  turned.effect_size = negate(found.effect_size);
  [turned.low, turned.high] = [negate(found.high), negate(found.low)];
  return turned;
}

function describePair(pair, model, other, taskType, overTasks) {
  const [one, two] = [modelName(model), modelName(other)];
  if (!pair || pair.difference === undefined) {
    const why = pair && pair.note ? pair.note : "this pair was not tested";
    return [one, ` ${MINUS} `, two, `: ${why}`];
  }
  const facts = [];
  if (pair.low !== undefined) {
    facts.push(`${Number((100 * (1 - data.alpha)).toFixed(4))}% interval ${showSigned(pair.low)} to ${showSigned(pair.high)}`);
  }
  facts.push(pair.p === undefined ? "no test" : `${showP(pair.p)}, corrected ${showP(pair.p_corrected)}`);
  if (pair.effect_size !== undefined) facts.push(`effect size ${showSigned(pair.effect_size, 2)}`);
  facts.push(overTasks ? `${pair.items} tasks` : count(pair.items, taskType));
  const verdict = pair.p === undefined ? "" : pair.significant ? "Significant." : "Not significant.";
  return [one, ` ${MINUS} `, two, ": ", el("b", {}, showSigned(pair.difference)),
    ` (${facts.join("; ")}). ${verdict} ${pair.note || ""}`];
}

function heatCell(pair, place, label, strongest) {
  if (!pair || pair.difference === undefined) {
    return el("td", { class: "heat none", tabindex: "-1", "data-place": place, "aria-label": `${label}: no test` }, DASH);
  }
  const kind = pair.difference > 0 ? "plus" : pair.difference < 0 ? "minus" : "zero";
  const sure = pair.significant ? "sure" : "unsure";
  const text = `${label}: ${showSigned(pair.difference)}, ${showP(pair.p_corrected)}, ${pair.significant ? "" : "not "}significant`;
  const cell = el(
    "td",
    { class: `heat ${kind} ${sure}`, tabindex: "-1", "data-place": place, "aria-label": text },
    el("span", { class: "number" }, showSigned(pair.difference)),
    el("span", { class: "p" }, showP(pair.p_corrected)),
  );
  const share = strongest ? Math.abs(pair.difference) / strongest : 0;
  const strength = pair.significant ? 22 + 38 * Math.sqrt(share) : 7 * Math.sqrt(share);
  cell.style.setProperty("--strength", `${strength.toFixed(1)}%`);
  return cell;
}

/** Models from the best score down; `view` is {title, pairs, scores, task_type, task or null}. */
function heatTable(view) {
  const order = Object.keys(view.scores)
    .map(Number)
    .sort((a, b) => (view.scores[b].score ?? SORT_LAST) - (view.scores[a].score ?? SORT_LAST));
  const strongest = Math.max(0, ...view.pairs.map((pair) => Math.abs(pair.difference || 0)));
  const head = el(
    "tr",
    {},
    el("th", { scope: "col", class: "name" }, "row minus column"),
    order.map((model, place) =>
      el("th", { scope: "col", title: data.models[model].name, "aria-label": data.models[model].name }, String(place + 1)),
    ),
  );
  const rows = order.map((model, row) =>
    el(
      "tr",
      {},
      el("th", { scope: "row", class: "name" },
        el("span", { class: "ranked" }, el("span", { class: "rank" }, String(row + 1)), modelName(model))),
      order.map((other, column) => {
        if (model === other) return el("td", { class: "heat self", "aria-hidden": "true" });
        const label = `${data.models[model].name} minus ${data.models[other].name}`;
        return heatCell(pairOf(view.pairs, model, other), `${row}-${column}`, label, strongest);
      }),
    ),
  );
  const table = el("table", { class: "heatmap", role: "grid", "aria-label": `All pairs: ${view.title}` },
    el("thead", {}, head), el("tbody", {}, rows));
  return { table, order };
}

/** Arrow keys move between cells; hover and focus call `show`, Enter and click `pick`. */
function heatKeys({ table, order }, show, pick) {
  const at = (row, column) => table.querySelector(`[data-place="${row}-${column}"]`);
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const read = (cell) => cell.dataset.place.split("-").map(Number);
  const first = table.querySelector("[data-place]");
  if (first) first.tabIndex = 0;
  const tell = (event, call) => {
    const cell = event.target.closest("[data-place]");
    if (cell) call(...read(cell).map((place) => order[place]), cell);
  };
  table.addEventListener("pointerover", (event) => tell(event, show));
  table.addEventListener("click", (event) => tell(event, pick));
  table.addEventListener("focusin", (event) =>
    tell(event, (model, other, cell) => {
      table.querySelectorAll("[data-place][tabindex='0']").forEach((one) => (one.tabIndex = -1));
      cell.tabIndex = 0;
      show(model, other);
    }),
  );
  table.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      tell(event, pick);
    }
    if (!moves[event.key] || !event.target.dataset.place) return;
    event.preventDefault();
    const [down, across] = moves[event.key];
    let [row, column] = read(event.target);
    do {
      row += down;
      column += across;
    } while (row === column);
    const next = at(row, column);
    if (next) next.focus();
  });
}

/** Every task and every task type with more than one task, as [key, view]. */
function heatViews() {
  return data.task_types.flatMap((taskType) => {
    const whole = { title: `${TITLES[taskType.name]}: mean of ${taskType.tasks.length} tasks`, pairs: taskType.pairs,
      scores: taskType.means, task_type: taskType.name, task: null };
    const single = taskType.tasks.map((task) => {
      const number = data.tasks.findIndex((one) => one.name === task.name);
      return { title: `${task.name} (${data.tasks[number].metric})`, pairs: task.pairs, scores: task.cells,
        task_type: taskType.name, task: number };
    });
    return taskType.pairs.length ? [...single, whole] : single;
  });
}

/** The task of the first task type on which most pairs differ significantly: the most to see. */
function richestTask() {
  const tally = data.tasks.map((task, number) =>
    taskTypeOf(number) === data.task_types[0] ? tableOf(number).pairs.filter((pair) => pair.significant).length : -1);
  return tally.indexOf(Math.max(...tally));
}

function drawHeatmaps() {
  const views = heatViews().filter((view) => Object.keys(view.scores).length > 1 && view.pairs.length);
  const body = byId("pairs-body");
  if (!views.length) {
    body.append(el("p", { class: "notice" }, "No two models share a task, so there is no pair to compare."));
    return;
  }
  byId("pairs-intro").append(
    "Each cell is the score of the row’s model minus that of the column’s, with the corrected p below. ",
    el("span", { class: "swatch plus" }, "+ blue: row better"), " ",
    el("span", { class: "swatch minus" }, `${MINUS} orange: row worse`),
    "; strong colour and bold where significant, pale where not. Choose a cell to look at its two models.",
  );
  const frame = el("div");
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const draw = (key) => {
    const view = views[key];
    const heat = heatTable(view);
    const show = (model, other) =>
      readout.replaceChildren(...describePair(pairOf(view.pairs, model, other), model, other, view.task_type, view.task === null).flat());
    readout.replaceChildren("Hover over a cell, or focus the table and use the arrow keys, to read a pair in full.");
    heatKeys(heat, show, (model, other) => {
      show(model, other);
      const task = view.task === null ? data.tasks.findIndex((one) => one.task_type === view.task_type) : view.task;
      choose({ task, first: model, second: other });
      readout.append(" ", el("a", { href: "#two" }, "See these two item by item."));
    });
    frame.replaceChildren(scroller(`All pairs: ${view.title}`, heat.table));
  };
  const start = Math.max(0, views.findIndex((view) => view.task === richestTask()));
  const select = picker("Task", views.map((view, key) => [key, view.title]), start, draw);
  select.box.id = "pairs-task";
  body.append(el("div", { class: "controls" }, select.node), frame, readout);
  draw(start);
  const printed = el("div", { class: "printed" });
  body.append(printed);
  window.addEventListener("beforeprint", () =>
    printed.replaceChildren(...views.flatMap((view) => [el("h3", {}, view.title), heatTable(view).table])),
  );
  window.addEventListener("afterprint", () => printed.replaceChildren());
}
