// The page asks for api/status once a second and shows it. It inserts what the
// server says as text, never as HTML.
"use strict";

const every = 1000;     // ms between two requests
const patience = 5000;  // ms that an answer may take
const kept = 120;       // answers that are kept, and that the lines show
const span = 10;        // answers whose times make one percentile

const answers = [];     // the last ones, the oldest first

// busy is the share of the processors that the server has used.
const busy = i => share(rise(i, s => s.processors.used_seconds), answers[i].processors.count);
const busyMost = 0.9;

const full = level => share(level.bytes, level.limit_bytes);

// before is the answer n places before the one at index i, or the first.
const before = (i, n) => answers[Math.max(0, i - n)];

// rise is how much a number of the answers rose per second between the answer before i
// and that at index i.
const rise = (i, of) => {
  const now = answers[i], then = before(i, 1);
  const passed = now.uptime_seconds - then.uptime_seconds;
  return passed > 0 ? (of(now) - of(then)) / passed : 0;
};
const total = (s, ...names) => names.reduce((n, name) => n + s.counters[name], 0);
const rate = (i, ...names) => rise(i, s => total(s, ...names)); // of counters
const clusterRate = (i, ...names) => rise(i, s => total(s.cluster, ...names));

// p99 is the 99th percentile of the times in the last answers up to index i, or
// undefined if there were none.
const p99 = (i, name) => {
  const now = answers[i].times[name].buckets;
  const then = i > 0 ? before(i, span).times[name].buckets : [];
  const rose = now.map((n, bucket) => n - (then[bucket] ?? 0));
  const all = rose.reduce((a, b) => a + b, 0);
  let n = 0;
  for (let bucket = 0; all > 0 && bucket < rose.length; bucket++) {
    n += rose[bucket];
    if (n >= 0.99 * all) return 2 ** bucket / 1e6;
  }
  return undefined;
};
const time = t => t === undefined ? "–" : `≤ ${seconds(t)}`;

const closed = ["closed_clean", "closed_gone", "closed_protocol", "closed_tls", "closed_expired", "closed_utf8", "closed_too_big", "closed_outbox",
  "closed_write_timeout", "closed_partial", "closed_message_timeout", "closed_idle", "closed_inbox", "closed_close_timeout",
  "closed_rate", "closed_topics", "closed_panic", "closed_shutdown"];
const lost = ["messages_dropped", "messages_discarded", "dropped_new", "dropped_old", "conflated", "undelivered"];
const overload = ["closed_outbox", "closed_write_timeout", "closed_inbox", "closed_partial"];

// A tile shows a value and a note from the answer s at index i, and draws a line.
// It turns amber while warn is true. The bounds are those of alerts.yml.
const load = [
  { id: "open", title: "Connections", value: s => count(s.connections.open), line: s => s.connections.open,
    note: s => `of ${count(s.connections.limit)}; ${count(s.connections.handshaking)} handshaking, ${count(s.connections.closing)} closing; ` +
      `${percent(share(s.connections.sockets, s.connections.sockets_limit))} of ${count(s.connections.sockets_limit)} sockets`,
    warn: (s, i) => share(s.connections.open, s.connections.limit) > 0.85 ||
      share(s.connections.sockets, s.connections.sockets_limit) > 0.85 || rate(i, "evicted") > 0 },
  { id: "opened", title: "Opened", value: (s, i) => `${few(rate(i, "opened"))}/s`, line: (s, i) => rate(i, "opened"),
    note: s => `${count(s.counters.opened)} since the start, ${count(s.counters.rejected)} rejected` },
  { id: "closed", title: "Closed", value: (s, i) => `${few(rate(i, ...closed))}/s`, line: (s, i) => rate(i, ...closed),
    note: s => `${count(total(s, ...closed))} since the start` },
  { id: "received", title: "Messages received", value: (s, i) => `${few(rate(i, "messages_in"))}/s`, line: (s, i) => rate(i, "messages_in"),
    note: (s, i) => `${bytes(rate(i, "bytes_in"))}/s; ${count(s.counters.messages_in)} in all` },
  { id: "sent", title: "Messages sent", value: (s, i) => `${few(rate(i, "messages_out"))}/s`, line: (s, i) => rate(i, "messages_out"),
    note: (s, i) => `${bytes(rate(i, "bytes_out"))}/s; ${count(s.counters.messages_out)} in all` },
  { id: "memory", title: "Memory per connection", value: s => s.memory.user_bytes_per_connection === null ? "–" : bytes(s.memory.user_bytes_per_connection + s.memory.kernel_bytes_per_connection),
    line: s => s.memory.user_bytes_per_connection + s.memory.kernel_bytes_per_connection, // null counts as 0
    note: s => s.memory.user_bytes_per_connection === null ? "shown from 5,000 connections: with fewer, most memory is for other things" :
      `${bytes(s.memory.user_bytes_per_connection)} in the process, ${bytes(s.memory.kernel_bytes_per_connection)} in the kernel` },
];

const pressure = [
  { id: "inbox", title: "Inboxes", value: s => bytes(s.inbox.bytes), line: s => s.inbox.bytes,
    note: s => `${percent(full(s.inbox))} of ${bytes(s.inbox.limit_bytes)}; ${count(s.connections.inbox_high)} half full, ${count(s.connections.paused)} paused, ${count(s.connections.curbed)} over their rate`,
    warn: s => full(s.inbox) > 0.5 || share(s.connections.inbox_high, s.connections.open) > 0.01 },
  { id: "outbox", title: "Outboxes", value: s => bytes(s.outbox.bytes), line: s => s.outbox.bytes,
    note: s => `${percent(full(s.outbox))} of ${bytes(s.outbox.limit_bytes)}; ${count(s.connections.slow)} slow peers`,
    warn: s => full(s.outbox) > 0.5 || share(s.connections.slow, s.connections.open) > 0.01 },
  { id: "broadcast", title: "Broadcasts on their way", value: s => bytes(s.broadcast.bytes), line: s => s.broadcast.bytes,
    note: s => `${percent(full(s.broadcast))} of ${bytes(s.broadcast.limit_bytes)}; ${count(s.connections.throttled)} throttled`,
    warn: s => full(s.broadcast) > 0.5 },
  { id: "topics", title: "Topics", value: s => count(s.topics.count), line: s => s.topics.count,
    note: (s, i) => `of ${count(s.topics.limit)}; ${count(s.topics.subscriptions)} subscriptions, ${count(s.counters.subscriptions_refused)} refused; ` +
      `${few(rate(i, "published"))}/s published`,
    warn: (s, i) => share(s.topics.count, s.topics.limit) > 0.85 || rate(i, "subscriptions_refused") > 0 },
  { id: "partial", title: "Incomplete messages", value: s => bytes(s.partial.bytes), line: s => s.partial.bytes,
    note: s => `${percent(full(s.partial))} of ${bytes(s.partial.limit_bytes)}`,
    warn: s => full(s.partial) > 0.5 },
  { id: "workers", title: "Workers busy", value: s => s.workers.limit ? `${count(s.workers.busy)} of ${count(s.workers.limit)}` : "none",
    line: s => s.workers.busy,
    note: (s, i) => s.workers.limit ? `${count(s.workers.waiting_connections)} connections wait, p99 ${time(p99(i, "handler_wait"))}; ${count(s.workers.stuck)} stuck` : "handlers run on the reactors",
    warn: (s, i) => s.workers.stuck > 0 || share(s.workers.busy, s.workers.limit) >= 0.9 && (p99(i, "handler_wait") ?? 0) > 0.1 },
  { id: "processors", title: "Processors", value: (s, i) => percent(busy(i)), line: (s, i) => busy(i),
    note: s => `of ${count(s.processors.count)}`,
    warn: (s, i) => busy(i) > busyMost },
  { id: "turn", title: "Reactor turn, p99", value: (s, i) => time(p99(i, "reactor_turn")), line: (s, i) => p99(i, "reactor_turn") ?? 0,
    note: s => `${count(s.counters.stalls)} stalls since the start`,
    warn: (s, i) => (p99(i, "reactor_turn") ?? 0) > 0.1 || rate(i, "stalls") > 0 },
  { id: "pass", title: "Broadcast pass, p99", value: (s, i) => time(p99(i, "broadcast_pass")), line: (s, i) => p99(i, "broadcast_pass") ?? 0,
    note: s => s.counters.broadcast_sends ? `messages per system call: ${few(share(s.counters.broadcast_messages, s.counters.broadcast_sends))}` : "nothing has been broadcast" },
  { id: "lost", title: "Messages lost", value: s => count(total(s, ...lost)), line: (s, i) => rate(i, ...lost),
    note: s => `dropped, or their connection ended; ${count(total(s, ...overload))} connections closed for overload`,
    warn: (s, i) => rate(i, ...lost, ...overload) > 0 },
  { id: "pauses", title: "Accept pauses", value: s => count(s.counters.accept_pauses), line: (s, i) => rate(i, "accept_pauses"),
    note: () => "because descriptors or memory ran out",
    warn: (s, i) => rate(i, "accept_pauses") > 0 },
];

const cluster = [
  { id: "nodes", title: "Servers", value: s => count(s.cluster.nodes), line: s => s.cluster.nodes,
    note: s => `this is ${s.cluster.node} of ${s.cluster.cluster}; ${count(s.cluster.counters.nodes_died)} have died`,
    warn: (s, i) => clusterRate(i, "nodes_died") > 0 },
  { id: "broker", title: "Broker", value: s => s.cluster.not_ready ? `away for ${seconds(s.cluster.away_seconds)}` : "there",
    line: s => s.cluster.not_ready ? 0 : 1,
    note: s => s.cluster.not_ready || `${s.cluster.broker}; was away ${count(s.cluster.counters.reconnects)} times; ${count(s.cluster.subjects)} subjects`,
    warn: s => s.cluster.not_ready !== "" },
  { id: "queue", title: "Waiting for the broker", value: s => bytes(s.cluster.queue.bytes), line: s => s.cluster.queue.bytes,
    note: (s, i) => `${percent(full(s.cluster.queue))} of ${bytes(s.cluster.queue.limit_bytes)}; ${count(s.cluster.queue_messages)} messages, ` +
      `${count(s.cluster.counters.refused)} refused; ${few(clusterRate(i, "published"))}/s published`,
    warn: (s, i) => full(s.cluster.queue) > 0.5 || clusterRate(i, "refused") > 0 },
  { id: "received-cluster", title: "From other servers", value: (s, i) => `${few(clusterRate(i, "received"))}/s`, line: (s, i) => clusterRate(i, "received"),
    note: s => `${count(s.cluster.counters.received)} in all; ${count(s.cluster.counters.doubles)} doubles` },
  { id: "lost-cluster", title: "Lost between servers", value: s => count(total(s.cluster, "lost", "unsent")), line: (s, i) => clusterRate(i, "lost", "unsent"),
    note: s => `${count(s.cluster.counters.lost)} of others have not arrived, ${count(s.cluster.counters.unsent)} were not sent` +
      (s.cluster.counters.unsure ? "; perhaps more" : ""),
    warn: (s, i) => clusterRate(i, "lost", "unsent", "unsure") > 0 },
  { id: "unconfirmed", title: "Unconfirmed subscriptions", value: s => count(s.cluster.counters.unconfirmed), line: (s, i) => clusterRate(i, "unconfirmed"),
    note: () => "not all servers have answered in time",
    warn: (s, i) => clusterRate(i, "unconfirmed") > 0 },
  { id: "members", title: "Members of topics", value: s => count(s.cluster.members), line: s => s.cluster.members,
    note: s => `${count(s.cluster.members_own)} of this server; ${bytes(s.cluster.presence.bytes)}, ${percent(full(s.cluster.presence))} of the most`,
    warn: (s, i) => full(s.cluster.presence) > 0.85 || clusterRate(i, "unwatched") > 0 },
  { id: "history", title: "Messages kept", value: s => count(s.cluster.history_messages), line: s => s.cluster.history_messages,
    note: s => `of ${count(s.cluster.history_topics)} topics; ${bytes(s.cluster.history.bytes)}, ${percent(full(s.cluster.history))} of the most` +
      (s.cluster.counters.restored > 0 ? `; ${count(s.cluster.counters.restored)} came from the stream` : ""),
    warn: (s, i) => full(s.cluster.history) > 0.85 || clusterRate(i, "unkept", "unread") > 0 },
];

const build = (parent, tiles) => {
  for (const tile of tiles) {
    tile.element = add(parent, "article", undefined, "tile");
    tile.element.id = tile.id;
    add(tile.element, "h3", tile.title);
    tile.valueElement = add(tile.element, "div", "–", "value");
    tile.noteElement = add(tile.element, "div", "", "note");
    const picture = svg(tile.element, "svg", { viewBox: `0 0 ${kept - 1} 30`, preserveAspectRatio: "none", "aria-hidden": "true" });
    tile.area = svg(picture, "polygon", {});
    tile.curve = svg(picture, "polyline", {});
  }
};

const draw = (tile, i) => {
  const s = answers[i];
  tile.valueElement.textContent = tile.value(s, i);
  tile.noteElement.textContent = tile.note(s, i);
  tile.element.classList.toggle("warn", Boolean(tile.warn?.(s, i)));
  const values = answers.map((answer, k) => tile.line(answer, k));
  const top = Math.max(...values) || 1;
  const first = kept - values.length; // now is at the right
  const points = values.map((v, k) => `${first + k},${(29 - 28 * v / top).toFixed(2)}`);
  tile.curve.setAttribute("points", points.join(" "));
  tile.area.setAttribute("points", `${first},30 ${points.join(" ")} ${kept - 1},30`);
};

// A peer keeps its row as long as it is shown, so that the button under the pointer
// does not become another peer's.
const rows = new Map();

const newRow = id => {
  const row = document.createElement("tr");
  row.dataset.id = id;
  add(row, "td", id, "id");
  for (const className of ["", "number", "number", "number", "number"]) add(row, "td", "", className);
  const button = add(add(row, "td"), "button", "close");
  button.type = "button";
  button.addEventListener("click", () => close(id, button));
  return row;
};

// close closes a connection at the second click.
const close = async (id, button) => {
  if (!button.classList.contains("sure")) {
    button.classList.add("sure");
    button.textContent = "really?";
    setTimeout(() => {
      if (button.disabled) return;
      button.classList.remove("sure");
      button.textContent = "close";
    }, 4000);
    return;
  }
  button.disabled = true;
  try {
    const r = await fetch(`api/connections/${id}`, { method: "DELETE", signal: AbortSignal.timeout(patience) });
    button.textContent = r.ok ? "closing" : r.status === 404 ? "gone" : `failed: ${r.status}`;
  } catch {
    button.textContent = "failed";
  }
};

const showLargest = peers => {
  const shown = new Set(peers.map(p => p.id));
  for (const [id, row] of rows) {
    if (shown.has(id)) continue;
    row.remove();
    rows.delete(id);
  }
  const body = byId("largest");
  peers.forEach((p, i) => {
    if (!rows.has(p.id)) rows.set(p.id, newRow(p.id));
    const row = rows.get(p.id);
    const texts = [p.remote, bytes(p.outbox_bytes), count(p.outbox_messages), seconds(p.waiting_seconds), bytes(p.kernel_bytes)];
    texts.forEach((text, k) => { row.cells[k + 1].textContent = text; });
    if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null);
  });
  byId("largest-none").hidden = peers.length > 0;
};

const showTopics = topics => {
  const body = byId("topics-largest");
  body.replaceChildren();
  for (const t of topics) {
    const row = add(body, "tr");
    add(add(row, "td"), "bdi", t.name); // whatever direction it turns to
    add(row, "td", count(t.subscribers), "number");
  }
  byId("topics-section").hidden = topics.length === 0;
};

const showBackends = backends => {
  const body = byId("backends");
  body.replaceChildren();
  for (const b of backends) {
    const row = add(body, "tr", undefined, b.advice && "warn");
    add(add(row, "td"), "bdi", b.path ? `${b.path} → ${b.url}` : b.url);
    add(row, "td", b.down_seconds ? `down for ${seconds(b.down_seconds)}: ${b.cause}` : b.advice || "up");
    add(row, "td", `${count(b.calls)} of ${count(b.calls_limit)}`, "number");
    add(row, "td", count(b.connections_waiting), "number");
    add(row, "td", b.connections_waiting ? seconds(b.waiting_seconds) : "–", "number");
    add(row, "td", b.answer_median_seconds ? `≤ ${seconds(b.answer_median_seconds)}` : "–", "number");
    add(row, "td", count(b.messages_lost), "number");
    add(add(row, "td"), "bdi", b.longest.slice(0, 3).map(w => w.user || w.id).join(", "));
  }
  byId("backends-section").hidden = backends.length === 0;
};

const showApps = apps => {
  byId("apps-section").hidden = !apps;
  if (!apps) return;
  const body = byId("apps");
  body.replaceChildren();
  for (const a of apps.apps) {
    const row = add(body, "tr", undefined, a.advice && "warn");
    add(add(row, "td"), "bdi", a.id);
    add(row, "td", a.advice || "up");
    add(row, "td", a.connections_limit ? `${count(a.connections)} of ${count(a.connections_limit)}` : count(a.connections), "number");
    add(row, "td", count(a.webhook_events_waiting), "number");
  }
  const refused = apps.refused.map(r => `${r.reason} ${count(r.count)}`).join(", ");
  byId("apps-note").textContent = `${count(apps.channels)} channels; ${count(apps.events_published)} events published, ` +
    `${count(apps.client_events)} by clients; refused: ${refused || "nothing"}`;
};

const showCluster = (s, i) => {
  byId("cluster-section").hidden = !s.cluster;
  if (!s.cluster) return;
  if (!cluster[0].element) build(byId("cluster"), cluster);
  for (const tile of cluster) draw(tile, i);
  const body = byId("silent");
  body.replaceChildren();
  for (const n of s.cluster.silent) {
    const row = add(body, "tr", undefined, n.alive ? "" : "warn");
    add(row, "td", n.name);
    add(row, "td", n.alive ? "alive" : "gone");
    add(row, "td", `${seconds(n.silence_seconds)} ago`, "number");
    add(row, "td", seconds(n.age_seconds), "number");
  }
  byId("silent-hint").hidden = s.cluster.silent.length === 0;
};

// ails says in a few words what is wrong with the answer s at index i, empty if nothing is.
// Messages may wait for a backend because the server has no time to ask it.
const ails = (s, i) => {
  if (s.cluster?.not_ready) return "not in its cluster";
  const backend = (s.backends ?? []).find(b => b.advice);
  if (backend?.down_seconds || backend && busy(i) <= busyMost) return backend.advice;
  if (backend) return "scale this server: its processors are busy, and messages wait";
  return document.querySelector(".tile.warn") ? "under pressure" : "";
};

const causesShown = 8;

const showEndings = causes => {
  const list = byId("endings");
  list.replaceChildren();
  const most = causes[0]?.count ?? 0;
  for (const c of causes.slice(0, causesShown)) {
    add(list, "dt", c.cause);
    const dd = add(list, "dd");
    add(dd, "span", "", "bar").style.width = `${70 * c.count / most}%`;
    add(dd, "span", count(c.count));
  }
  if (causes.length > causesShown) {
    add(list, "dt", "other causes");
    add(list, "dd", count(causes.slice(causesShown).reduce((n, c) => n + c.count, 0)));
  }
  byId("endings-none").hidden = causes.length > 0;
};

const say = (text, className) => {
  byId("state").textContent = text;
  byId("state").className = className;
};

const show = s => {
  const last = answers.at(-1);
  if (last && s.uptime_seconds < last.uptime_seconds) answers.length = 0; // the server was restarted
  answers.push(s);
  if (answers.length > kept) answers.shift();
  const i = answers.length - 1;
  for (const tile of [...load, ...pressure]) draw(tile, i);
  showLargest(s.largest);
  showBackends(s.backends ?? []);
  showApps(s.apps);
  showCluster(s, i);
  showTopics(s.topics.largest);
  showEndings(s.causes);
  const u = s.setup;
  byId("where").textContent = `${s.addresses.join(", ")} · ${u.reactors} reactor${u.reactors === 1 ? "" : "s"}, ${u.tables} tables` +
    ` · handlers: ${u.mode}; inbox policy: ${u.inbox_policy}; outbox policy: ${u.outbox_policy} · up ${seconds(s.uptime_seconds)}`;
  document.body.classList.remove("lost");
  byId("main").setAttribute("aria-busy", "false");
  if (s.not_ready) say(s.not_ready, "bad");
  else if (ails(s, i)) say(ails(s, i), "warn");
  else say("serving", "");
};

let heard; // when the last answer came

const unreachable = why => {
  const since = heard ? `; this is ${seconds((Date.now() - heard) / 1000)} old` : "";
  document.body.classList.add("lost");
  say(`the server does not answer (${why})${since}`, "bad");
};

const ask = async () => {
  try {
    const r = await fetch("api/status", { signal: AbortSignal.timeout(patience) });
    if (r.status === 401) return location.reload(); // the session has ended: the form comes
    if (!r.ok) throw new Error(`status ${r.status}`);
    show(await r.json());
    heard = Date.now();
  } catch (e) {
    unreachable(e.message);
  }
  setTimeout(ask, every);
};

build(byId("load"), load);
build(byId("pressure"), pressure);
ask();
