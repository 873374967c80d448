// A table for each task type, sorted by any column.

const SORT_LAST = -Infinity;

function sortValue(taskType, column, model) {
  const cell = column === "mean" ? taskType.means[model] : taskType.tasks[column].cells[model];
  return cell && cell.score !== null ? cell.score : SORT_LAST;
}

function scoreCell(cell, best) {
  if (!cell) return el("td", { class: "score none" }, el("span", { title: "not run" }, DASH));
  if (cell.score === null) {
    return el("td", { class: "score none" }, el("span", { title: cell.reason }, "undefined"));
  }
  const number = el(cell.leading ? "strong" : "span", { class: "number" }, showScore(cell.score));
  return el(
    "td",
    { class: best ? "score best" : "score" },
    number,
    el("span", { class: "letters" }, cell.marks || ""),
  );
}

function meanCell(taskType, model, best) {
  if (taskType.means[model]) return scoreCell(taskType.means[model], best);
  const lacking = taskType.tasks.filter((task) => sortValue(taskType, taskType.tasks.indexOf(task), model) === SORT_LAST);
  const why = `no mean: it has no score on ${lacking.map((task) => task.name).join(", ")}`;
  return el("td", { class: "score none" }, el("span", { title: why, "aria-label": why }, DASH));
}

/** The order of models after a sort; equal scores stay as they are. */
function sorted(taskType, column, direction) {
  if (column === "model") {
    const name = (model) => data.models[model].name;
    return [...taskType.models].sort((a, b) => direction * name(a).localeCompare(name(b)));
  }
  return [...taskType.models].sort((a, b) => {
    const [one, other] = [sortValue(taskType, column, a), sortValue(taskType, column, b)];
    if (one === other) return 0;
    if (one === SORT_LAST || other === SORT_LAST) return one === SORT_LAST ? 1 : -1;
    return direction * (one - other);
  });
}

function taskTypeTable(taskType) {
  const body = el("tbody");
  const state = { column: "mean", direction: -1, text: "" };
  const columns = [
    ["model", "Model", ""],
    ["mean", "Mean", ""],
    ...taskType.tasks.map((task, place) => [
      place, task.name, data.tasks.find((one) => one.name === task.name).metric,
    ]),
  ];
  const bests = new Map(
    columns.slice(1).map(([key]) => [key, Math.max(...taskType.models.map((model) => sortValue(taskType, key, model)))]),
  );
  const heads = columns.map(([key, title, metric]) => {
    const button = el(
      "button",
      { type: "button" },
      el("span", { class: "arrow", "aria-hidden": "true" }),
      el("span", { class: "title" }, title),
      metric ? el("span", { class: "metric" }, metric) : null,
    );
    button.addEventListener("click", () => {
      const first = key === "model" ? 1 : -1;
      state.direction = state.column === key ? -state.direction : first;
      state.column = key;
      draw();
    });
    return el("th", { scope: "col", class: key === "model" ? "name" : "score" }, button);
  });
  const draw = () => {
    heads.forEach((head, place) => {
      const active = columns[place][0] === state.column;
      if (active) head.setAttribute("aria-sort", state.direction < 0 ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const isBest = (key, model) => sortValue(taskType, key, model) === bests.get(key);
    makeRow = (model) =>
      el(
        "tr",
        {},
        el("th", { scope: "row", class: "name" }, modelName(model)),
        meanCell(taskType, model, isBest("mean", model)),
        taskType.tasks.map((task, place) => scoreCell(task.cells[model], isBest(place, model))),
      );
    const left = sorted(taskType, state.column, state.direction).filter((model) => hasText(model, state.text));
    show(left);
    return left.length;
  };
  let makeRow = null;
  const table = el("table", { class: "leaderboard" }, el("thead", {}, el("tr", {}, heads)), body);
  const longest = [...taskType.tasks.map((task) => task.cells), taskType.means]
    .flatMap((cells) => Object.values(cells))
    .reduce((most, cell) => Math.max(most, (cell.marks || "").length), 0);
  table.style.setProperty("--letters", `${longest}ch`);
  const { box, node } = manyRows(`Scores: ${TITLES[taskType.name]}`, table, taskType.models.length, (text) => {
    state.text = text;
    return draw();
  });
  const show = rowsInSight(box, body, columns.length, (model) => makeRow(model));
  draw();
  return node;
}

function taskTypeNotes(taskType) {
  const lines = taskType.notes.map((note) => el("p", {}, note));
  taskType.tasks.forEach((task) => {
    Object.entries(task.cells)
      .filter(([, cell]) => cell.score === null)
      .forEach(([model, cell]) =>
        lines.push(el("p", {}, "Undefined on ", el("em", {}, task.name), " for ", modelName(model), `: ${cell.reason}`)),
      );
  });
  const missing = taskType.tasks.flatMap((task) =>
    taskType.models.filter((model) => !task.cells[model]).map((model) => [task.name, model]),
  );
  if (missing.length > MANY_NAMES) {
    lines.push(el("p", {}, `${DASH} ${missing.length.toLocaleString("en")} scores are missing: the model was not run on the task.`));
  } else missing.forEach(([task, model]) =>
    lines.push(el("p", {}, `${DASH} `, modelName(model), " was not run on ", el("em", {}, task), ".")),
  );
  if (taskType.absent.length > MANY_NAMES) {
    lines.push(el("p", {}, `Not run on this task type: ${taskType.absent.length.toLocaleString("en")} models.`));
  } else if (taskType.absent.length) {
    const names = taskType.absent.flatMap((model, place) => [place ? ", " : "", modelName(model)]);
    lines.push(el("p", {}, "Not run on this task type: ", names, "."));
  }
  return lines.length ? el("div", { class: "notes measure" }, lines) : null;
}

function drawLeaderboard() {
  const explain = !data.tested ? ["Best first by the mean over the tasks of a type. Choose a heading to sort by it."]
    : data.baseline
    ? ["Best first by the mean over the tasks of a type. ", el("b", {}, `+ and ${MINUS}`),
       " mark scores significantly better and worse than the baseline ",
       el("span", { class: "model" }, data.baseline), "; a bold score is the best of its column."]
    : ["Best first by the mean over the tasks of a type. In each column, models that share a ",
       el("b", {}, "letter"), ` do not differ significantly (corrected p below ${data.alpha}); a `,
       el("b", {}, "bold"), " score is not significantly below the best. Choose a heading to sort by it."];
  byId("leaderboard-intro").append(...explain);
  byId("leaderboard-tables").append(
    ...data.task_types.flatMap((taskType) => [
      el("h3", {}, TITLES[taskType.name]),
      taskTypeTable(taskType),
      taskTypeNotes(taskType) || "",
    ]),
  );
  if (data.cautions.length) {
    byId("leaderboard-tables").append(
      el("h3", {}, "To be read with these tables"),
      el("ul", { class: "measure" }, data.cautions.map((text) => el("li", {}, text))),
    );
  }
}
