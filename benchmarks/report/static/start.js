// The head of the page, how it was made, and the start of all parts.

function drawSummary() {
  const models = data.models.length;
  const tasks = data.tasks.length;
  const items = data.tasks.reduce((sum, task) => sum + task.items, 0);
  byId("summary").append(
    `${models} ${models === 1 ? "model" : "models"} on ${tasks} ${tasks === 1 ? "task" : "tasks"}, `,
    `${items ? `${items.toLocaleString("en")} items scored` : "scores without items"}${data.tested ? `, every difference tested at ${data.alpha} after correction` : ""}. `,
    el("time", { datetime: data.created }, data.created.slice(0, 10)),
  );
  byId("footer").append(`Made by millpond ${data.version} from ${data.folder}, ${data.created.replace("T", " ").slice(0, 16)} UTC. `,
    "This page is whole: it asks the network for nothing.");
}

function dataTable() {
  const rows = data.tasks.map((task) =>
    el("tr", {}, el("th", { scope: "row", class: "name" }, task.name), el("td", { class: "text" }, TITLES[task.task_type]),
      el("td", { class: "text" }, task.metric), el("td", {}, task.items.toLocaleString("en")),
      el("td", { class: "text" }, task.data.join(", ") || DASH), el("td", { class: "text" }, task.settings.join(", ") || DASH),
      el("td", { class: "text" }, el("code", {}, task.sha256))));
  const heads = ["task", "task type", "metric", "items", "data", "settings", "SHA-256"];
  return el("table", { class: "numbers" },
    el("thead", {}, el("tr", {}, heads.map((title) => el("th", { scope: "col", class: title === "task" ? "name" : title === "items" ? "score" : "text" }, title)))),
    el("tbody", {}, rows));
}

function noteLine(note) {
  const all = Object.keys(tableOf(data.tasks.findIndex((task) => task.name === note.task)).cells).length;
  const names = note.models.map((name) => data.models.findIndex((model) => model.name === name));
  const who = all > 1 && names.length === all ? "all models" : names.flatMap((model, place) => [place ? ", " : "", modelName(model)]);
  return el("li", {}, el("em", {}, note.task), ", ", who, `: ${note.text}`);
}

function drawMethod() {
  const versions = Object.entries(data.versions).map(([name, version]) => `${name} ${version}`).join(", ");
  const models = data.models.map((model, number) =>
    el("tr", {}, el("th", { scope: "row", class: "name" }, modelName(number)),
      el("td", { class: "text" }, el("code", {}, model.fingerprints.join(", ")))));
  byId("method-body").append(
    el("h3", {}, "Tests"),
    el("ul", { class: "measure" }, data.tests.map((line) => el("li", {}, line))),
    ...(data.notes.length ? [el("h3", {}, "Notes"), el("ul", { class: "measure" }, data.notes.map(noteLine))] : []),
    el("h3", {}, "Data"),
    scroller("Data of each task", dataTable()),
    el("h3", {}, "Models"),
    scroller("Fingerprints of the models", el("table", { class: "numbers" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "name" }, "model"), el("th", { scope: "col", class: "text" }, "fingerprint"))),
      el("tbody", {}, models))),
    ...(versions ? [el("h3", {}, "Versions"), el("p", { class: "measure" }, versions)] : []),
  );
}

drawSummary();
drawRanking();
drawLeaderboard();
drawPair();
drawHeatmaps();
drawCost();
drawMethod();
