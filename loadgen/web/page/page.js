// The page listens to events, and shows what they say. It inserts that as text, never as
// HTML.
"use strict";

const retry = 3000;     // ms until a page that was turned away asks again
const stale = 5000;     // ms without news after which the run does not answer
const warm = 30000;     // ms between two requests that keep a connection open
const patience = 5000;  // ms that an order may take
const sureFor = 4000;   // ms that a second click counts
const before = 5, after = 15; // phases that are shown around the one that goes on

const each = n => `${few(n)}/s`;
const time = ms => seconds(ms / 1000);
const quantiles = kind => ["p50", "p99", "max"].map(q => ({ name: q === "max" ? "longest" : q, column: `${kind}_${q}` }));
const times = (kind, title) => ({ id: kind, title, format: time, log: true, optional: true, series: quantiles(kind), kind });

const specs = [
  { id: "connections", title: "Connections", format: count,
    series: [{ name: "open", column: "open" }, { name: "wanted", column: "users" }, { name: "opening", column: "opening" }] },
  { id: "connects", title: "Connects a second", format: each,
    series: [{ name: "opened", column: "connects" }, { name: "failed or ended", column: "failures" }] },
  times("handshake", "Handshakes"),
  times("tls", "TLS handshakes"),
  { id: "messages", title: "Messages a second", format: each, optional: true,
    series: [{ name: "sent", column: "out" }, { name: "received", column: "in" }] },
  { id: "bytes", title: "Bytes a second", format: n => `${scaled(n, 1000, ["B", "kB", "MB", "GB"])}/s`, optional: true,
    series: [{ name: "sent", column: "bytes_out" }, { name: "received", column: "bytes_in" }] },
  times("broadcast", "Broadcasts"),
  times("echo", "Answers"),
  times("flood", "Answers to those who do not wait"),
  times("pong", "Pings"),
  times("away", "Time until connections are back"),
  { id: "processors", title: "Processors", format: percent, top: 1,
    series: [{ name: "generator", column: "cpu" }, { name: "all programs", column: "busy" }] },
  times("lag", "The generator's own lag"),
];

let run = null;         // what the welcome said
let columns = {};       // the place of each column in a point
let points = [];        // the whole run
let begins = [];        // phases that have begun
let charts = [];
let last = null;        // the last status
let heard = 0;          // when it came
let source = null;

const say = (text, className) => {
  byId("state").textContent = text;
  byId("state").className = className;
};

const welcome = w => {
  run = w;
  columns = Object.fromEntries(w.columns.map((name, i) => [name, i]));
  points = [];
  byId("where").textContent = w.title;
  document.title = w.title ? `${w.title} – lull load` : "lull load";
  byId("control").hidden = !w.control;
  byId("charts").replaceChildren();
  charts = specs.map(spec => newChart(byId("charts"), { ...spec, hint: spec.kind && w.kinds[spec.kind] }));
};

const showPhases = p => {
  begins = p.begun;
  const list = byId("phases");
  list.replaceChildren();
  const names = [...begins.map(b => b.name), ...p.coming];
  const now = begins.length - 1;
  const first = Math.max(0, now - before), end = Math.min(names.length, now + after);
  if (first > 0) add(list, "li", `${first} before`, "done");
  for (let i = first; i < end; i++) {
    const item = add(list, "li", names[i], i < now ? "done" : "");
    if (i === now) item.setAttribute("aria-current", "step");
  }
  if (end < names.length) add(list, "li", `${names.length - end} more`);
};

const showProgress = s => {
  const bar = byId("progress");
  const known = s.seconds_to_go !== null;
  if (s.ended) bar.value = 1;
  else if (known) bar.value = s.phase_seconds / (s.phase_seconds + s.seconds_to_go);
  else bar.removeAttribute("value"); // nobody knows how far it is
  const text = !s.phase_count ? "" : `phase ${s.phase_index + 1} of ${s.phase_count}, for ${seconds(s.phase_seconds)}` + (known ? `, ${seconds(s.seconds_to_go)} to go` : "");
  byId("togo").textContent = `${text}${text ? "; " : ""}the run has taken ${clock(s.seconds)}`;
  bar.setAttribute("aria-valuetext", text);
};

// fill makes a table's rows have texts. className of a column is that of its head.
const fill = (id, rows) => {
  const body = byId(id);
  const heads = [...body.closest("table").querySelectorAll("thead th")].map(th => th.className);
  rows.forEach((texts, i) => {
    const row = body.rows[i] ?? add(body, "tr");
    texts.forEach((text, k) => {
      const cell = row.cells[k] ?? add(row, "td", "", heads[k]);
      if (cell.textContent !== text) cell.textContent = text; // so that a selection stays
    });
  });
  while (body.rows.length > rows.length) body.rows[rows.length].remove();
  byId(`${id}-none`).hidden = rows.length > 0;
};

const showTables = s => {
  fill("times", Object.entries(s.phase_times).map(([kind, t]) => [kind, count(t.count), ...[t.p50, t.p95, t.p99, t.p99_9, t.last].map(time)]));
  fill("errors", s.errors.map(e => [count(e.count), e.counter, e.phase, e.text]));
  fill("counts", Object.keys(run.counters).filter(name => s.counts[name] > 0).map(name => [name, count(s.counts[name]), run.counters[name]]));
  const list = byId("limits");
  if (list.children.length !== s.limited.length) { // else it would be read aloud again
    list.replaceChildren();
    for (const text of s.limited) add(list, "li", text);
  }
  byId("limited").hidden = s.limited.length === 0;
};

const showState = s => {
  if (s.ended) say("the run has ended", "");
  else if (!s.phase) say("the run has not begun", "");
  else if (s.paused) say("paused", "warn");
  else if (s.limited.length) say("running; the generator is the bottleneck", "warn");
  else say("running", "");
  byId("pause").textContent = s.paused ? "Go on" : "Pause";
  for (const e of byId("control").elements) e.disabled = s.ended;
  document.body.classList.remove("lost");
  byId("main").setAttribute("aria-busy", "false");
};

const show = s => {
  last = s;
  heard = Date.now();
  showProgress(s);
  showTables(s);
  showState(s);
  if (s.ended) source.close();
};

const drawAll = () => {
  if (!document.hidden) for (const chart of charts) chart.draw(points, columns, begins);
};

const listen = () => {
  source = new EventSource("events");
  const on = (name, then) => source.addEventListener(name, e => then(JSON.parse(e.data)));
  on("welcome", welcome);
  on("phases", showPhases);
  on("points", p => {
    points = p.anew ? p.points : points.concat(p.points);
    drawAll();
  });
  on("status", show);
  source.onerror = async () => {
    if (last?.ended) return source.close();
    unreachable();
    if (source.readyState !== EventSource.CLOSED) return; // it tries again itself
    const why = await fetch("snapshot.json").then(r => r.status, () => 0);
    if (why === 401) return location.reload(); // the form comes
    setTimeout(listen, retry);
  };
};

const unreachable = () => {
  if (last?.ended) return;
  document.body.classList.add("lost");
  say(`the run does not answer${heard ? `; this is ${seconds(Math.round((Date.now() - heard) / 1000))} old` : ""}`, "bad");
};

// order sends an order, and says what came of it.
const order = async (name, body, done) => {
  const said = byId("said");
  try {
    const r = await fetch(`api/${name}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: AbortSignal.timeout(patience),
    });
    said.textContent = r.ok ? done : (await r.text()).trim();
    said.className = r.ok ? "" : "bad";
  } catch (e) {
    said.textContent = `the order did not arrive: ${e.message}`;
    said.className = "bad";
  }
};

byId("pause").addEventListener("click", () => order("pause", { paused: !last?.paused }, last?.paused ? "The run goes on." : "The run pauses."));
byId("control").addEventListener("submit", e => {
  e.preventDefault();
  const n = byId("rate").valueAsNumber;
  order("rate", { per_second: n }, n ? `The rate is ${few(n)} a second.` : "The phase goes as fast as it can.");
});
// The second click stops.
byId("stop").addEventListener("click", e => {
  const button = e.currentTarget;
  const calm = () => {
    button.classList.remove("sure");
    button.textContent = "Stop";
  };
  if (button.classList.contains("sure")) {
    calm();
    return order("stop", {}, "The run stops.");
  }
  button.classList.add("sure");
  button.textContent = "Really stop?";
  setTimeout(calm, sureFor);
});

// A load may use every port of this machine, and the browser could then open no connection
// for an order. So it has one that is never idle for long.
setInterval(() => { if (last && !last.ended) fetch("snapshot.json").catch(unreachable); }, warm);
setInterval(() => { if (last && Date.now() - heard > stale) unreachable(); }, 1000);
addEventListener("resize", drawAll);
document.addEventListener("visibilitychange", drawAll);
listen();
