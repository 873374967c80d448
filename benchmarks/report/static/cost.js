// What a model costs against how good it is over a task type.

const COSTS = [
  ["tokens_per_second", "Tokens per second", "right is faster", 1],
  ["query_p50_seconds", "Median time of a query", "left is faster", -1],
  ["parameters", "Parameters", "left is smaller", -1],
];
const COST_TABLE = [
  ["tokens_per_second", "tokens/s", showAmount],
  ["query_p50_seconds", "query p50", (value) => showSeconds(value)],
  ["query_p95_seconds", "query p95", (value) => showSeconds(value)],
  ["seconds", "seconds/task", (value) => showAmount(value)],
  ["parameters", "parameters", showAmount],
  ["pooling_flops", "pooling FLOPs", showAmount],
  ["index_bytes", "index", (value) => showBytes(value)],
  ["peak_memory_bytes", "peak memory", (value) => showBytes(value)],
];

function showSeconds(value) {
  if (value < 1e-3) return `${Number((value * 1e6).toPrecision(3))} µs`;
  return value < 1 ? `${Number((value * 1e3).toPrecision(3))} ms` : `${Number(value.toPrecision(3))} s`;
}

const showBytes = (value) => `${showAmount(value).replace(/[kMGT]$/, " $&")}B`;

const showCost = (key) => (key === "query_p50_seconds" ? showSeconds : showAmount);

/** Models with a mean and this cost, the best first; `front` where none is cheaper and better. */
function costPoints(taskType, [key, , , direction]) {
  const points = taskType.models
    .filter((model) => taskType.means[model] && taskType.costs[model][key] > 0)
    .map((model) => ({ model, cost: taskType.costs[model][key], score: taskType.means[model].score }));
  points.forEach((point) => {
    point.front = !points.some(
      (other) =>
        direction * other.cost >= direction * point.cost && other.score >= point.score &&
        (other.cost !== point.cost || other.score !== point.score),
    );
  });
  return points;
}

function costChart(width, taskType, cost) {
  const points = costPoints(taskType, cost);
  const height = Math.min(420, Math.max(300, width * 0.6));
  const narrow = width < 560;
  const frame = { left: 44, top: 26, right: width - 14, bottom: height - 46 };
  const amounts = points.map((point) => point.cost);
  const log = Math.max(...amounts) / Math.min(...amounts) > 4;
  const spread = log ? 10 ** (0.06 * Math.log10(Math.max(...amounts) / Math.min(...amounts))) : 1;
  const [low, high] = log ? [Math.min(...amounts) / spread, Math.max(...amounts) * spread] : extent(amounts, 0.1, [0, Infinity]);
  const x = scale(low, high, frame.left + 6, frame.right - 6, { log, wanted: narrow ? 3 : 6 });
  const [worst, best] = extent(points.map((point) => point.score), 0.12, [-1, 1]);
  const y = scale(worst, best, frame.bottom, frame.top, { wanted: 5 });
  const labels = points.map((point, place) => (narrow ? String(place + 1) : `${place + 1} ${clip(shortNames[point.model], 32)}`));
  const boxes = placeLabels(
    points.map((point, place) => ({ x: x(point.cost), y: y(point.score), width: textWidth(labels[place]) + 4, height: 15 })),
    frame,
  );
  const marks = points.map((point, place) => {
    const [left, top, box] = [x(point.cost), y(point.score), boxes[place]];
    const near = Math.max(box.left, Math.min(left, box.right));
    const far = Math.hypot(near - left, (box.top + box.bottom) / 2 - top) > 18;
    return svg("g", {},
      far ? svg("line", { class: "leader", x1: left, y1: top, x2: near, y2: (box.top + box.bottom) / 2 }) : null,
      svg("circle", { class: point.front ? "mark front" : "mark", cx: left, cy: top, r: 5.5 },
        svg("title", {}, `${data.models[point.model].name}: ${showScore(point.score)}, ${showCost(cost[0])(point.cost)}`)),
      svg("text", { class: "label", x: box.left + 2, y: box.bottom - 3 }, labels[place]));
  });
  const label = `${cost[1]} against the mean of ${TITLES[taskType.name]}, ${points.length} models; the table below has the numbers`;
  return svg("svg", { class: "chart", role: "img", "aria-label": label, width, height, viewBox: `0 0 ${width} ${height}` },
    axes(frame, x, y, `${cost[1]}${log ? ", logarithmic" : ""} (${cost[2]})`, "mean score", showCost(cost[0]), y.show), marks);
}

function costTable(taskType) {
  const known = COST_TABLE.filter(([key]) => taskType.models.some((model) => taskType.costs[model][key] !== undefined));
  const rows = taskType.models.map((model) =>
    el("tr", {}, el("th", { scope: "row", class: "name" }, modelName(model)),
      el("td", {}, showScore(taskType.means[model] && taskType.means[model].score)),
      known.map(([key, , show]) => el("td", {}, taskType.costs[model][key] === undefined ? DASH : show(taskType.costs[model][key])))));
  const heads = [["model", "name"], ["mean", ""], ...known.map(([, title]) => [title, ""])];
  return el("table", { class: "numbers" },
    el("thead", {}, el("tr", {}, heads.map(([title, kind]) => el("th", { scope: "col", class: kind || "score" }, title)))),
    el("tbody", {}, rows));
}

function drawCost() {
  const host = byId("cost-body");
  const usable = COSTS.filter(([key]) => data.task_types.some((taskType) => taskType.models.some((model) => taskType.costs[model][key] > 0)));
  if (!usable.length) {
    host.append(el("p", { class: "notice" }, "No result has a cost."));
    return;
  }
  const state = { task_type: 0, cost: 0 };
  const box = el("div", { class: "costs" });
  const legend = el("ol", { class: "legend" });
  const below = el("div", {});
  const redraw = onWidth(box, (width) => {
    const points = usable.length ? costPoints(data.task_types[state.task_type], usable[state.cost]) : [];
    box.replaceChildren(points.length ? costChart(width, data.task_types[state.task_type], usable[state.cost])
      : el("p", { class: "notice" }, "No model has both this cost and a mean over this task type."));
    legend.replaceChildren(...points.map((point) => el("li", {}, modelName(point.model))));
    legend.hidden = width >= 560;
  });
  const update = () => {
    const taskType = data.task_types[state.task_type];
    redraw();
    const drawn = usable.length ? costPoints(taskType, usable[state.cost]).map((point) => point.model) : [];
    const left = taskType.models.filter((model) => !drawn.includes(model));
    below.replaceChildren(
      el("p", { class: "muted measure" }, "Filled: no other model is at least as good at no higher cost. Costs are medians over the tasks of the type, as measured on the machine of the run.",
        left.length > MANY_NAMES ? ` Not drawn, for want of a mean or of this cost: ${left.length.toLocaleString("en")} models.` : left.length ? [" Not drawn, for want of a mean or of this cost: ", left.flatMap((model, place) => [place ? ", " : "", modelName(model)]), "."] : []),
      el("details", {}, el("summary", {}, "The numbers"), scroller("Costs", costTable(taskType))));
  };
  const set = (key) => (value) => {
    state[key] = Number(value);
    update();
  };
  const taskTypes = picker("Quality", data.task_types.map((taskType, number) => [number, TITLES[taskType.name]]), 0, set("task_type"));
  const costs = picker("Cost", usable.map(([, title], number) => [number, title]), 0, set("cost"));
  host.append(el("div", { class: "controls" }, taskTypes.node, costs.node), box, legend, below);
  update();
}
