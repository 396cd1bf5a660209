// Clients and publishers of Pusher Channels against lull, unchanged but for the host: pusher-js,
// laravel-echo and pusher. It prints what has worked, and ends with 1 at the first thing that has not.
//
//	node pusher.mjs DIR host:port[,host:port…]
//
// With several servers clients are on one, others on the next, and publishers ask any.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const [dir, servers] = process.argv.slice(2);
const hosts = servers.split(",").map((s) => ({ host: s.slice(0, s.lastIndexOf(":")), port: s.slice(s.lastIndexOf(":") + 1) }));
const [Client, Publisher] = ["pusher-js", "pusher"].map(createRequire(`${dir}/`));
const { default: Echo } = await import(pathToFileURL(`${dir}/node_modules/laravel-echo/dist/echo.js`)); // as bundlers do

const app = { appId: "1", key: "app-key", secret: "app-secret" };
const publishers = hosts.map(({ host, port }) => new Publisher({ ...app, host, port, useTLS: false, encryptionMasterKeyBase64: Buffer.alloc(32, 7).toString("base64") }));
let turn = 0;
const publisher = () => publishers[turn++ % publishers.length];

const patience = 60_000;
const within = (what, promise) => Promise.race([promise, sleep(patience, undefined, { ref: false }).then(() => assert.fail(`waited in vain for ${what}`))]);
const event = (emitter, name, fits = () => true) =>
  within(name, new Promise((resolve) => {
    const handler = (data, meta) => {
      if (!fits(data, meta)) return;
      emitter.unbind(name, handler);
      resolve(data);
    };
    emitter.bind(name, handler);
  }));
const eventually = async (what, ok) => {
  for (const end = Date.now() + patience; Date.now() < end; await sleep(20)) if (await ok()) return;
  assert.fail(`waited in vain until ${what}`);
};

let last = 0;
const all = [];
async function connect(user = "nobody") {
  const { host, port } = hosts[last++ % hosts.length];
  const one = publishers[0];
  const c = new Client(app.key, {
    cluster: "", wsHost: host, wsPort: Number(port), forceTLS: false, enabledTransports: ["ws"],
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) =>
        done(null, one.authorizeChannel(socketId, channelName, channelName.startsWith("presence-") ? { user_id: user, user_info: { name: `info of ${user}` } } : undefined)),
    },
    userAuthentication: { customHandler: ({ socketId }, done) => done(null, one.authenticateUser(socketId, { id: user })) },
  });
  all.push(c);
  if (c.connection.state !== "connected") await event(c.connection, "connected");
  return c;
}
const subscribed = async (c, name) => {
  const channel = c.subscribe(name);
  const data = await event(channel, "pusher:subscription_succeeded");
  return [channel, data];
};

const scenarios = {
  async "public channels"() {
    const [a, b] = [await connect(), await connect()];
    const [[atA], [atB]] = [await subscribed(a, "news"), await subscribed(b, "news")];
    const got = Promise.all([event(atA, "said"), event(atB, "said")]);
    await publisher().trigger("news", "said", { text: "<é>" });
    assert.deepEqual(await got, [{ text: "<é>" }, { text: "<é>" }]);
    const texts = [];
    atA.bind("again", (data) => texts.push(data));
    const end = Promise.all([event(atA, "again", (d) => d === "all"), event(atB, "again", (d) => d === "others")]);
    const same = publisher();
    await same.trigger("news", "again", "others", { socket_id: a.connection.socket_id });
    await same.trigger(["news", "elsewhere"], "again", "all");
    await end;
    assert.deepEqual(texts, ["all"]);
    a.unsubscribe("news");
  },
  async "batches"() {
    const [channel] = await subscribed(await connect(), "batched");
    const got = Promise.all([event(channel, "one"), event(channel, "two")]);
    await publisher().triggerBatch([{ channel: "batched", name: "one", data: { n: 1 } }, { channel: "batched", name: "two", data: { n: 2 } }]);
    assert.deepEqual(await got, [{ n: 1 }, { n: 2 }]);
  },
  async "private channels and client events"() {
    const [a, b] = [await connect(), await connect()];
    const [[atA], [atB]] = [await subscribed(a, "private-room"), await subscribed(b, "private-room")];
    const got = event(atB, "client-typing");
    assert.ok(atA.trigger("client-typing", { key: "x" }));
    assert.deepEqual(await got, { key: "x" });
  },
  async "refused subscriptions"() {
    const c = await connect();
    c.config.channelAuthorizer = (_, done) => done(null, { auth: "app-key:0000" });
    const error = await event(c.subscribe("private-forged"), "pusher:subscription_error");
    assert.equal(error.status, 401);
  },
  async "presence"() {
    const [a, b] = [await connect("anna"), await connect("bob")];
    const [atA] = await subscribed(a, "presence-room");
    assert.equal(atA.members.me.id, "anna");
    const came = event(atA, "pusher:member_added", ({ id }) => id === "bob");
    const [atB] = await subscribed(b, "presence-room");
    assert.deepEqual(await came, { id: "bob", info: { name: "info of bob" } });
    await eventually("bob sees both", () => atB.members.count === 2 && atB.members.get("anna")?.info.name === "info of anna");
    const said = new Promise((resolve) => atB.bind("client-said", (data, meta) => resolve([data, meta])));
    atA.trigger("client-said", "hello");
    assert.deepEqual(await within("client-said", said), ["hello", { user_id: "anna" }]);
    const users = await (await publisher().get({ path: "/channels/presence-room/users" })).json();
    assert.deepEqual(users.users.map(({ id }) => id).sort(), ["anna", "bob"]);
    const left = event(atA, "pusher:member_removed");
    b.disconnect();
    assert.equal((await left).id, "bob");
    await eventually("anna is alone", () => atA.members.count === 1);
  },
  async "cache channels"() {
    const [a, b] = [await connect(), await connect()];
    await event(a.subscribe("cache-prices"), "pusher:cache_miss");
    const got = event(a.channel("cache-prices"), "price");
    await publisher().trigger("cache-prices", "price", { n: 7 });
    await got;
    assert.deepEqual(await event(b.subscribe("cache-prices"), "price"), { n: 7 });
  },
  async "encrypted channels"() {
    const [channel] = await subscribed(await connect(), "private-encrypted-secrets");
    const got = event(channel, "secret");
    await publisher().trigger("private-encrypted-secrets", "secret", { password: "é" });
    assert.deepEqual(await got, { password: "é" });
  },
  async "users"() {
    const [a, b] = [await connect("ulla"), await connect("ulla")];
    for (const c of [a, b]) {
      c.signin();
      await within("signing in", c.user.signinDonePromise);
    }
    await eventually("both get what is sent to the user", async () => {
      const got = Promise.all([a, b].map((c) => Promise.race([event(c.user, "note"), sleep(500)])));
      await publisher().sendToUser("ulla", "note", { n: 1 });
      return (await got).every((data) => data?.n === 1);
    });
    const gone = Promise.all([a, b].map((c) => event(c.connection, "error", (e) => e?.data?.code === 4009 || e?.error?.data?.code === 4009)));
    await publisher().terminateUserConnections("ulla");
    await gone;
    await eventually("both are disconnected", () => [a, b].every((c) => c.connection.state === "disconnected"));
  },
  async "counts"() {
    const a = await connect();
    const channel = a.subscribe("counted");
    await event(channel, "pusher:subscription_count", (d) => d.subscription_count === 1);
    const two = event(channel, "pusher:subscription_count", (d) => d.subscription_count === 2);
    const b = await connect();
    b.subscribe("counted");
    await two;
    assert.equal(channel.subscriptionCount, 2);
    const info = await (await publisher().get({ path: "/channels/counted", params: { info: "subscription_count" } })).json();
    assert.deepEqual(info, { occupied: true, subscription_count: 2 });
    const listed = await (await publisher().get({ path: "/channels", params: { filter_by_prefix: "counted" } })).json();
    assert.deepEqual(Object.keys(listed.channels), ["counted"]);
  },
  async "errors"() {
    await assert.rejects(publisher().trigger("news", "x", "y".repeat(11_000)), { status: 413 });
    const wrong = new Publisher({ ...app, secret: "wrong", ...hosts[0], useTLS: false });
    await assert.rejects(wrong.trigger("news", "x", "y"), { status: 401 });
  },
  async "Laravel Echo"() {
    const [one, two] = [await connect("eva"), await connect("finn")];
    const [a, b] = [one, two].map((client) => new Echo({ broadcaster: "pusher", client, key: app.key, namespace: "App.Events" }));
    const when = (ask) => within("Echo", new Promise(ask));
    await when((done) => a.channel("orders").subscribed(done).listen("OrderShipped", () => {}));
    const shipped = when((done) => a.channel("orders").listen("OrderShipped", done));
    await publisher().trigger("orders", "App\\Events\\OrderShipped", { id: 5 });
    assert.deepEqual(await shipped, { id: 5 });
    await when((done) => a.private("talk").subscribed(done));
    const whispered = when((done) => a.private("talk").listenForWhisper("typing", done));
    await when((done) => b.private("talk").subscribed(done));
    b.private("talk").whisper("typing", { name: "finn" });
    assert.deepEqual(await whispered, { name: "finn" });
    assert.deepEqual(await when((done) => a.join("lobby").here(done)), [{ name: "info of eva" }]);
    const joining = when((done) => a.join("lobby").joining(done));
    const leaving = when((done) => a.join("lobby").leaving(done));
    b.join("lobby");
    assert.deepEqual(await joining, { name: "info of finn" });
    b.leave("lobby");
    assert.deepEqual(await leaving, { name: "info of finn" });
    await when((done) => a.encryptedPrivate("vault").subscribed(done));
    const secret = when((done) => a.encryptedPrivate("vault").listen(".opened", done));
    await publisher().trigger("private-encrypted-vault", "opened", { by: "eva" });
    assert.deepEqual(await secret, { by: "eva" });
    assert.equal(a.socketId(), one.connection.socket_id);
  },
};

process.on("unhandledRejection", (e) => {
  console.error(e);
  process.exit(1);
});
for (const [name, scenario] of Object.entries(scenarios)) {
  try {
    await scenario();
  } catch (e) {
    console.error(`${name}:`, e);
    process.exit(1);
  }
  console.log(name);
}
all.forEach((c) => c.disconnect());
process.exit(0);
