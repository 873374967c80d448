// Two models on one task: every item as a point, and the queries on which they differ most.

/** Items that both models have, those with the same two scores together: {x, y, items}. */
function pointsOf(block, first, second) {
  const [one, two] = [block.values[first], block.values[second]];
  if (!one || !two) return [];
  const found = new Map();
  one.forEach((value, item) => {
    if (value === null || two[item] === null || two[item] === undefined) return;
    const gold = block.gold ? block.gold[item] : "";
    const key = `${value} ${two[item]} ${gold}`;
    if (!found.has(key)) {
      const shade = block.gold && block.gold[item] !== null ? block.gold[item] / block.scale : null;
      found.set(key, { x: value / block.scale, y: two[item] / block.scale, items: [], gold: shade });
    }
    found.get(key).items.push(item);
  });
  return [...found.values()].sort((a, b) => b.items.length - a.items.length);
}

const itemId = (block, item) => (block.ids ? block.ids[item] : String(item));

function describePoint(block, point, taskType) {
  const scores = ` ${showScore(point.x)} against ${showScore(point.y)}`;
  const gold = point.gold === null ? "" : `, true score ${showScore(point.gold, 2)}`;
  const named = point.items.slice(0, 3).map((item) => {
    const text = block.texts && block.texts[item];
    return el("li", {}, text ? text : `${SINGULARS[taskType]} ${itemId(block, item)}`,
      text ? el("span", { class: "id" }, ` ${itemId(block, item)}`) : null);
  });
  const more = point.items.length - named.length;
  if (more > 0) named.push(el("li", { class: "muted" }, `and ${more.toLocaleString("en")} more`));
  return [el("p", {}, el("b", {}, count(point.items.length, taskType)), `:${scores}${gold}`), el("ul", {}, named)];
}

function drawScatter(svgNode, width, block, points, names, taskType) {
  const size = Math.min(width, 520);
  const frame = { left: 44, top: 26, right: size - 12, bottom: size - 46 };
  const limits = taskType === "sts" ? [-1, 1] : [0, 1];
  const values = points.flatMap((point) => [point.x, point.y]);
  const [low, high] = taskType === "retrieval" ? [-0.03, 1.03] : extent(values, 0.06, limits);
  const x = scale(low, high, frame.left, frame.right, { wanted: 5 });
  const y = scale(low, high, frame.bottom, frame.top, { wanted: 5 });
  const golds = points.map((point) => point.gold).filter((gold) => gold !== null);
  const [least, most] = [Math.min(...golds), Math.max(...golds)];
  const marks = points.map((point) => {
    Object.assign(point, { left: x(point.x), top: y(point.y) });
    const side = point.x > point.y ? "first" : point.x < point.y ? "second" : "equal";
    const radius = Math.min(18, 2.6 + 0.9 * Math.sqrt(point.items.length));
    const dot = svg("circle", {
      class: point.gold === null ? `dot ${side}` : "dot gold", cx: point.left.toFixed(1),
      cy: point.top.toFixed(1), r: radius.toFixed(1),
    });
    if (point.gold !== null) {
      const share = most > least ? (point.gold - least) / (most - least) : 0.5;
      dot.style.setProperty("--strength", `${(100 * share).toFixed(0)}%`);
    }
    return dot;
  });
  const ring = svg("circle", { class: "ring", r: 9, visibility: "hidden" });
  const diagonal = svg("line", { class: "diagonal", x1: x(low), y1: y(low), x2: x(high), y2: y(high) });
  svgNode.setAttribute("viewBox", `0 0 ${size} ${size}`);
  svgNode.setAttribute("width", size);
  svgNode.setAttribute("height", size);
  const room = Math.floor(size / 7.5);
  svgNode.replaceChildren(
    axes(frame, x, y, clip(`A  ${names[0]}`, room), clip(`B  ${names[1]}`, room), x.show, y.show),
    diagonal, svg("g", {}, marks), ring,
  );
  return ring;
}

/** Pointer and arrow keys over the points; `show` gets a point. */
function scatterKeys(box, svgNode, getState, show) {
  let current = -1;
  const mark = (place) => {
    const { points, ring } = getState();
    if (!points[place] || !ring) return;
    current = place;
    ring.setAttribute("cx", points[place].left);
    ring.setAttribute("cy", points[place].top);
    ring.setAttribute("visibility", "visible");
    show(points[place]);
  };
  const nearest = (event) => {
    const { points } = getState();
    const area = svgNode.getBoundingClientRect();
    const [left, top] = [event.clientX - area.left, event.clientY - area.top];
    let best = { place: -1, distance: 24 };
    points.forEach((point, place) => {
      const distance = Math.hypot(point.left - left, point.top - top);
      if (distance < best.distance) best = { place, distance };
    });
    if (best.place >= 0 && best.place !== current) mark(best.place);
  };
  svgNode.addEventListener("pointermove", nearest);
  svgNode.addEventListener("pointerdown", nearest);
  box.addEventListener("keydown", (event) => {
    const { points } = getState();
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step || !points.length) return;
    event.preventDefault();
    mark((current + step + points.length) % points.length);
  });
  return () => (current = -1);
}

function pairFacts(task, first, second) {
  const { task_type: taskType, metric } = data.tasks[task];
  const table = tableOf(task);
  const block = itemsOf(task);
  const lines = [[first, "A"], [second, "B"]].map(([model, letter]) =>
    el("li", {}, el("b", { class: "side" }, letter), modelName(model),
      el("span", { class: "number" }, `${metric} `, showScore(table.cells[model] && table.cells[model].score))));
  const facts = [el("ul", { class: "sides" }, lines)];
  const pair = pairOf(table.pairs, first, second);
  if (pair) facts.push(el("p", {}, "A ", MINUS, " B: ", describePair(pair, first, second, taskType, false).slice(4)));
  if (taskType !== "sts" && block.values[first] && block.values[second]) {
    const all = pointsOf(block, first, second);
    const total = (test) => all.filter(test).reduce((sum, point) => sum + point.items.length, 0);
    facts.push(el("p", {}, "A ahead on ", el("b", {}, count(total((p) => p.x > p.y), taskType)), ", B on ",
      el("b", {}, String(total((p) => p.x < p.y))), ", equal on ", el("b", {}, String(total((p) => p.x === p.y))), "."));
  }
  return facts;
}

function hitList(block, model, item, letter) {
  const row = (block.hits[model] || {})[item] || [];
  const hits = [];
  for (let place = 0; place < row.length; place += 2) {
    const [id, title, snippet] = block.documents[row[place]];
    const relevance = row[place + 1];
    const grade = relevance > 1 ? ` (${relevance})` : "";
    hits.push(el("li", { class: relevance > 0 ? "hit relevant" : "hit" },
      el("span", { class: "mark" }, relevance > 0 ? `● relevant${grade}` : "○ not judged relevant"),
      el("b", {}, title || id), title ? el("span", { class: "id" }, ` ${id}`) : null,
      el("span", { class: "snippet" }, snippet)));
  }
  return el("div", {}, el("h5", {}, el("b", { class: "side" }, letter), modelName(model)),
    hits.length ? el("ol", {}, hits) : el("p", { class: "muted" }, "No documents are kept for this query."));
}

function queryDetails(block, item, models) {
  const scores = models.map((model) => showScore(block.values[model][item] / block.scale, 2));
  const node = el("details", { class: "query" }, el("summary", {},
    el("span", { class: "text" }, block.texts[item] || `query ${itemId(block, item)}`),
    el("span", { class: "number" }, `A ${scores[0]}, B ${scores[1]}`)));
  node.addEventListener("toggle", () => {
    if (!node.open || node.querySelector(".hits")) return;
    node.append(el("div", { class: "hits" }, hitList(block, models[0], item, "A"), hitList(block, models[1], item, "B")));
  });
  return node;
}

function queryLists(task, first, second) {
  const block = itemsOf(task);
  if (!block.most) return [];
  const flip = first > second;
  const found = block.most[flip ? `${second}-${first}` : `${first}-${second}`];
  if (!found) return [];
  const [ahead, behind] = flip ? [found[1], found[0]] : found;
  return [[ahead, "A"], [behind, "B"]].map(([items, letter]) =>
    el("div", {}, el("h4", {}, `Queries where ${letter} leads by most`),
      items.length ? items.map((item) => queryDetails(block, item, [first, second]))
        : el("p", { class: "muted" }, "There is none.")));
}

/** A task with the chosen models; one that was not run on it makes way for the best that was. */
function fitting(task) {
  const there = taskTypeOf(task).models.filter((model) => tableOf(task).cells[model]);
  const pair = [choice.first, choice.second].map((model) => (there.includes(model) ? model : null));
  const spare = there.filter((model) => !pair.includes(model));
  const [first, second] = pair.map((model) => (model === null ? spare.shift() : model));
  return { task, first: first ?? choice.first, second: second ?? choice.second };
}

function drawPair() {
  const host = byId("two-body");
  const inTask = (task) => Object.keys(tableOf(task).cells).map(Number);
  const shared = (task) => inTask(task).length > 1 && data.tasks[task].with_items > 1;
  const start = shared(richestTask()) ? richestTask() : data.tasks.findIndex((task, number) => shared(number));
  if (start < 0) {
    host.append(el("p", { class: "notice" }, "No two models have scores of single items on one task."));
    return;
  }
  const ranked = taskTypeOf(start).models.filter((model) => inTask(start).includes(model));
  Object.assign(choice, { task: start, first: ranked[0], second: ranked[1] });
  const names = data.models.map((model, number) => [number, model.name]);
  const pick = (key) => (value) => choose({ [key]: Number(value) });
  const pickTask = (value) => choose(fitting(Number(value)));
  const selects = {
    task: picker("Task", data.tasks.map((task, number) => [number, `${task.name} (${task.metric})`]), choice.task, pickTask),
    first: picker("Model A", names, choice.first, pick("first")),
    second: picker("Model B", names, choice.second, pick("second")),
  };
  const swap = el("button", { type: "button", class: "plain" }, "Swap A and B");
  swap.addEventListener("click", () => choose({ first: choice.second, second: choice.first }));
  const facts = el("div", { class: "facts" });
  const readout = el("div", { class: "readout", "aria-live": "polite" });
  const chart = svg("svg", { role: "img", class: "chart" });
  const box = el("div", { class: "scatter", tabindex: "0", role: "group" }, chart);
  const lists = el("div", { class: "queries" });
  const state = { points: [], ring: null };
  const forget = scatterKeys(box, chart, () => state, (point) =>
    readout.replaceChildren(...describePoint(itemsOf(choice.task), point, data.tasks[choice.task].task_type)));
  const redraw = onWidth(box, (width) => {
    const { task, first, second } = choice;
    forget();
    state.points = pointsOf(itemsOf(task), first, second);
    box.hidden = !state.points.length;
    if (box.hidden) return;
    state.ring = drawScatter(chart, width, itemsOf(task), state.points,
      [shortNames[first], shortNames[second]], data.tasks[task].task_type);
  });
  const update = () => {
    const { task, first, second } = choice;
    const taskType = data.tasks[task].task_type;
    for (const key of ["task", "first", "second"]) selects[key].box.value = String(choice[key]);
    for (const { box: select } of [selects.first, selects.second]) {
      [...select.options].forEach((option) => (option.disabled = !inTask(task).includes(Number(option.value))));
    }
    const what = taskType === "sts" ? "cosine" : data.tasks[task].metric;
    box.setAttribute("aria-label", `Scatter of ${data.models[first].name} (across) and ${data.models[second].name} (up): ${what} of each ${SINGULARS[taskType]}. Arrow keys step through the points.`);
    box.hidden = false;
    redraw();
    const lacking = [first, second].filter((model) => !itemsOf(task).values[model]);
    facts.replaceChildren(...(first === second ? [el("p", { class: "notice" }, "A and B are the same model; choose another one.")] : []),
      ...lacking.map((model) => el("p", { class: "notice" }, modelName(model), " has no scores of single items on this task.")),
      ...pairFacts(task, first, second));
    const hint = taskType === "sts" ? "Each point is a pair of sentences: the cosine that A gives across, B’s up."
      : `Each point is one ${SINGULARS[taskType]}, a larger one several with the same two scores. Below the line A is better, above it B.`;
    const shades = taskType === "sts" ? el("span", { class: "shades" }, "True score: low", el("i"), "high. ") : "";
    readout.replaceChildren(el("p", { class: "muted" }, `${hint} `, shades, "Hover, tap, or use the arrow keys to read one."));
    lists.replaceChildren(...(first === second ? [] : queryLists(task, first, second)));
  };
  host.append(
    el("div", { class: "controls" }, selects.task.node, selects.first.node, selects.second.node, swap),
    el("div", { class: "pair" }, box, el("div", {}, facts, readout)), lists,
  );
  choice.listeners.push(update);
  update();
}
