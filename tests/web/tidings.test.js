/**
 * The browser client with a fake socket: order, recovery, tokens, pings, back-off.
 */
import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Tidings, TidingsError, backoff } from "../../web/tidings.js";

/** All sockets created, newest last. */
let sockets = [];

class FakeSocket {
  sent = [];
  isClosed = false;

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    sockets.push(this);
  }

  send(text) {
    this.sent.push(...text.split("\n").map((line) => JSON.parse(line)));
  }

  close() {
    this.isClosed = true;
  }

  say(...replies) {
    this.onmessage({ data: replies.map((reply) => JSON.stringify(reply)).join("\n") });
  }

  /** Replies to the last command with this method. */
  answer(method, result) {
    this.say({ id: this.last(method).id, [method]: result });
  }

  refuse(method, code, temporary = false) {
    this.say({ id: this.last(method).id, error: { code, message: `error ${code}`, temporary } });
  }

  last(method) {
    return this.sent.findLast((command) => method in command) ?? assert.fail(`no ${method} was sent`);
  }

  count(method) {
    return this.sent.filter((command) => method in command).length;
  }
}

beforeEach(() => {
  sockets = [];
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
});

/** Runs the continuations of settled promises. */
const settle = async () => {
  for (let turn = 0; turn < 20; turn++) await null;
};

function make(options = {}) {
  const client = new Tidings("ws://here", { WebSocket: FakeSocket, random: () => 1, ...options });
  client.states = [];
  client.on("state", ({ state }) => client.states.push(state));
  return client;
}

async function connected(options, result = { client: "c1", ping: 25, pong: true }) {
  const client = make(options);
  client.connect();
  await open(client, result);
  return client;
}

/** Opens the newest socket and accepts the connect command. */
async function open(client, result = { client: `c${sockets.length}`, ping: 25, pong: true }) {
  await settle();
  const socket = sockets.at(-1);
  socket.onopen();
  socket.answer("connect", result);
  await settle();
  return socket;
}

async function subscribed(client, result = { recoverable: true, offset: 0, epoch: "e" }, options) {
  const subscription = client.subscribe("news", options);
  subscription.seen = [];
  subscription.states = [];
  subscription.on("publication", ({ data }) => subscription.seen.push(data));
  subscription.on("state", ({ state }) => subscription.states.push(state));
  await settle();
  sockets.at(-1).answer("subscribe", result);
  await settle();
  return subscription;
}

const pub = (offset) => ({ data: `p${offset}`, offset });
const push = (offset) => ({ push: { channel: "news", pub: pub(offset) } });

test("back-off doubles up to its bound, with full jitter", () => {
  assert.deepEqual([0, 1, 2, 10, 1000].map((n) => backoff(n, () => 1)), [300, 600, 1200, 20_000, 20_000]);
  assert.equal(backoff(10, () => 0), 0);
});

test("connects with its token, and answers pings", async () => {
  const client = await connected({ token: "t", data: { a: 1 } });
  assert.equal(sockets[0].protocol, "centrifuge-json");
  assert.deepEqual(sockets[0].sent[0].connect, { token: "t", data: { a: 1 }, name: "tidings.js" });
  assert.deepEqual([client.state, client.clientId], ["connected", "c1"]);
  sockets[0].say({});
  assert.deepEqual(sockets[0].sent.at(-1), {});
});

test("a publication in the same message as the subscribe reply comes after it", async () => {
  const client = await connected();
  const subscription = client.subscribe("news");
  const seen = [];
  subscription.on("state", ({ state }) => seen.push(state));
  subscription.on("publication", ({ data }) => seen.push(data));
  const { id } = sockets[0].last("subscribe");
  sockets[0].say({ id, subscribe: { recoverable: true, offset: 4, epoch: "e" } }, push(5));
  assert.deepEqual(seen, ["subscribed", "p5"]);
});

test("resumes from its position without duplicates, and reports the number of missed publications", async () => {
  const client = await connected();
  const subscription = await subscribed(client);
  const recoveries = [];
  subscription.on("recovered", (detail) => recoveries.push(detail));
  sockets[0].say(push(1), push(2));
  sockets[0].onclose({ code: 1006, reason: "" });
  assert.deepEqual([client.state, subscription.state], ["waiting", "subscribing"]);
  mock.timers.tick(300);
  const socket = await open(client);
  const { recover, offset, epoch } = socket.last("subscribe").subscribe;
  assert.deepEqual([recover, offset, epoch], [true, 2, "e"]);
  const publications = [pub(3), pub(4)];
  socket.answer("subscribe", { recoverable: true, was_recovering: true, recovered: true, offset: 2, epoch: "e", publications });
  socket.say(push(4), push(5));
  assert.deepEqual(subscription.seen, ["p1", "p2", "p3", "p4", "p5"]);
  assert.deepEqual(recoveries, [{ recovered: true, count: 2 }]);
});

/** Advances the time until a connection counts as stable. */
const live = () => mock.timers.tick(5_000);

test("a gap is reported, and the new position is used", async () => {
  const client = await connected();
  live();
  const subscription = await subscribed(client);
  const recoveries = [];
  subscription.on("recovered", ({ recovered }) => recoveries.push(recovered));
  sockets[0].onclose({ code: 3001, reason: "shutdown" });
  mock.timers.tick(300);
  let socket = await open(client);
  socket.answer("subscribe", { recoverable: true, was_recovering: true, offset: 900, epoch: "other" });
  assert.deepEqual(recoveries, [false]);
  live();
  socket.onclose({ code: 1006, reason: "" });
  mock.timers.tick(300);
  socket = await open(client);
  assert.deepEqual([socket.last("subscribe").subscribe.offset, socket.last("subscribe").subscribe.epoch], [900, "other"]);
});

test("final close codes end the connection, others do not", async () => {
  for (const [code, state] of [[3500, "disconnected"], [4500, "disconnected"], [1009, "disconnected"], [3001, "waiting"], [1006, "waiting"]]) {
    const client = await connected();
    sockets.at(-1).onclose({ code, reason: "because" });
    assert.equal(client.state, state, String(code));
    client.disconnect();
  }
});

test("a connection without data beyond the ping interval is closed", async () => {
  const client = await connected();
  mock.timers.tick(34_999);
  assert.equal(client.state, "connected");
  sockets[0].say({});
  mock.timers.tick(34_999);
  assert.equal(client.state, "connected");
  mock.timers.tick(1);
  assert.equal(client.state, "waiting");
  assert.ok(sockets[0].isClosed);
});

test("back-off grows until a connection is stable", async () => {
  const client = make();
  const waits = [];
  client.on("state", ({ retryMs }) => retryMs && waits.push(retryMs));
  client.connect();
  for (let attempt = 0; attempt < 4; attempt++) {
    await settle();
    sockets.at(-1).onclose({ code: 1006, reason: "" });
    mock.timers.tick(waits.at(-1));
  }
  await open(client);
  sockets.at(-1).onclose({ code: 1006, reason: "" });
  mock.timers.tick(waits.at(-1));
  await open(client);
  live();
  sockets.at(-1).onclose({ code: 1006, reason: "" });
  assert.deepEqual(waits, [300, 600, 1200, 2400, 4800, 300]);
  assert.equal(sockets.length, 6);
  client.connect();
  await settle();
  assert.equal(sockets.length, 7, "connect() does not wait");
});

test("close code 1009 is final", async () => {
  const client = await connected();
  const details = [];
  client.on("state", (detail) => details.push(detail));
  sockets[0].onclose({ code: 1009, reason: "message size limit" });
  assert.deepEqual(details, [{ state: "disconnected", code: 1009, reason: "message size limit" }]);
  mock.timers.tick(3_600_000);
  await settle();
  assert.equal(sockets.length, 1);
});

test("back-off grows for a subscription that ends at once", async () => {
  const client = await connected();
  await subscribed(client);
  const end = { push: { channel: "news", unsubscribe: { code: 2500, reason: "gap" } } };
  const asked = [];
  for (const ms of [0, 300, 600, 1200]) {
    sockets[0].say(end);
    mock.timers.tick(ms);
    await settle();
    asked.push(sockets[0].count("subscribe"));
    sockets[0].answer("subscribe", { recoverable: true, offset: 0, epoch: "e" });
    await settle();
  }
  assert.deepEqual(asked, [2, 3, 4, 5]);
});

test("tokens of any lifetime are refreshed at expiry and not earlier", async (t) => {
  // Steps of weeks look like a machine that was asleep; hidden pages do not check for this.
  page(t).document.hidden = true;
  for (const days of [1, 24, 25, 30, 365]) {
    let asked = 0;
    const client = await connected({ getToken: async () => `token ${++asked}` }, { client: "c", expires: true, ttl: days * 86_400 });
    await subscribed(client, { ttl: days * 86_400 }, { getToken: async () => `sub ${++asked}` });
    assert.equal(asked, 2);
    const socket = sockets.at(-1);
    // In steps, because timers set during a tick start at its end.
    const wait = (ms) => {
      for (let left = ms; left > 0; left -= 2 ** 31 - 1) mock.timers.tick(Math.min(left, 2 ** 31 - 1));
    };
    wait(days * 86_400_000 - 1);
    await settle();
    assert.equal(asked, 2, `after ${days} days without a millisecond`);
    wait(1);
    await settle();
    assert.equal(asked, 4, `after ${days} days`);
    assert.deepEqual([socket.count("refresh"), socket.count("sub_refresh")], [1, 1]);
    client.disconnect();
  }
});

test("an expired token is replaced, also before its expected expiry", async () => {
  const tokens = ["first", "second", "third"];
  const client = make({ getToken: async () => tokens.shift() });
  client.connect();
  await settle();
  sockets[0].onopen();
  sockets[0].refuse("connect", 109);
  await settle();
  mock.timers.tick(300);
  const socket = await open(client, { client: "c", expires: true, ttl: 60 });
  assert.equal(socket.last("connect").connect.token, "second");
  mock.timers.tick(60_000);
  await settle();
  assert.deepEqual(socket.last("refresh").refresh, { token: "third" });
  socket.answer("refresh", { ttl: 60 });
  assert.equal(client.state, "connected");
});

test("a refusal of the connection is final unless it is temporary", async () => {
  for (const [code, temporary, state] of [[103, false, "disconnected"], [100, true, "waiting"]]) {
    const client = make();
    client.connect();
    await settle();
    sockets.at(-1).onopen();
    sockets.at(-1).refuse("connect", code, temporary);
    await settle();
    assert.equal(client.state, state);
    client.disconnect();
  }
});

test("a refused subscription ends, a temporary refusal is retried", async () => {
  const client = await connected();
  const refused = client.subscribe("refused");
  sockets[0].refuse("subscribe", 103);
  await settle();
  assert.equal(refused.state, "unsubscribed");
  const later = client.subscribe("later");
  sockets[0].refuse("subscribe", 111, true);
  await settle();
  mock.timers.tick(20_000);
  await settle();
  sockets[0].answer("subscribe", {});
  assert.equal(later.state, "subscribed");
});

test("the server ends subscriptions permanently or temporarily", async () => {
  const client = await connected();
  const subscription = await subscribed(client);
  sockets[0].say(push(7), { push: { channel: "news", unsubscribe: { code: 2500, reason: "gap" } } });
  await settle();
  assert.equal(sockets[0].last("subscribe").subscribe.offset, 7);
  sockets[0].answer("subscribe", { recoverable: true, offset: 7, epoch: "e" });
  sockets[0].say({ push: { channel: "news", unsubscribe: { code: 2000, reason: "server" } } });
  await settle();
  assert.equal(subscription.state, "unsubscribed");
  assert.equal(sockets[0].count("subscribe"), 2);
});

test("commands fail without a connection, without a reply, and with an error reply", async () => {
  const client = make();
  await assert.rejects(client.publish("x", 1), { code: 0 });
  client.connect();
  await open(client);
  const silent = client.publish("x", 1);
  mock.timers.tick(5_000);
  await assert.rejects(silent, { code: 1, temporary: true });
  const refused = client.publish("x", 1);
  sockets[0].refuse("publish", 103);
  await assert.rejects(refused, TidingsError);
  const cut = client.publish("x", 1);
  sockets[0].onclose({ code: 1006, reason: "" });
  await assert.rejects(cut, { code: 0 });
});

test("unsubscribing and disconnecting", async () => {
  const client = await connected();
  const subscription = await subscribed(client);
  subscription.unsubscribe();
  assert.deepEqual(sockets[0].last("unsubscribe").unsubscribe, { channel: "news" });
  sockets[0].say(push(1));
  assert.deepEqual(subscription.seen, []);
  assert.notEqual(client.subscribe("news"), subscription);
  client.disconnect();
  assert.ok(sockets[0].isClosed);
  mock.timers.tick(60_000);
  assert.equal(sockets.length, 1);
});

test("a subscription is requested again if the connection is lost before the reply", async () => {
  const client = await connected();
  client.subscribe("news");
  sockets[0].onclose({ code: 1006, reason: "" });
  await settle();
  mock.timers.tick(300);
  const socket = await open(client);
  assert.equal(socket.count("subscribe"), 1);
});

/** A fake window and document whose events the test dispatches. */
function page(t) {
  const [window, document] = [new EventTarget(), new EventTarget()];
  Object.assign(document, { visibilityState: "visible", hidden: false });
  const before = { addEventListener: globalThis.addEventListener, document: globalThis.document };
  globalThis.addEventListener = window.addEventListener.bind(window);
  globalThis.document = document;
  t.after(() => Object.assign(globalThis, before));
  return { window, document, fire: (target, event) => target.dispatchEvent(new Event(event)) };
}

test("a page closes its connection on pagehide and resumes from its position", async (t) => {
  const { window, fire } = page(t);
  const client = await connected();
  const subscription = await subscribed(client);
  sockets[0].say(push(3));
  fire(window, "pagehide");
  assert.ok(sockets[0].isClosed);
  assert.deepEqual([client.state, subscription.state], ["waiting", "subscribing"]);
  mock.timers.tick(3_600_000);
  fire(window, "online");
  await settle();
  assert.equal(sockets.length, 1, "a hidden page does not connect");
  fire(window, "pageshow");
  const socket = await open(client);
  assert.deepEqual([socket.last("subscribe").subscribe.recover, socket.last("subscribe").subscribe.offset], [true, 3]);
  fire(window, "pageshow");
  await settle();
  assert.equal(sockets.length, 2);
});

test("a disconnected client stays disconnected when its page is shown again", async (t) => {
  const { window, fire } = page(t);
  const client = await connected();
  client.disconnect();
  for (const event of ["pagehide", "pageshow", "online"]) fire(window, event);
  await settle();
  assert.deepEqual([client.state, sockets.length], ["disconnected", 1]);
});

test("online and visible events end the back-off, and a dead connection is closed", async (t) => {
  const { window, document, fire } = page(t);
  for (const [target, event] of [[window, "online"], [document, "visibilitychange"], [document, "resume"]]) {
    const client = await connected();
    sockets.at(-1).onclose({ code: 1006, reason: "" });
    const before = sockets.length;
    fire(target, event);
    await settle();
    assert.equal(sockets.length, before + 1, event);
    const socket = await open(client);
    fire(target, event);
    fire(target, event);
    assert.equal(socket.count("ping"), 1, event);
    socket.refuse("ping", 108);
    await settle();
    mock.timers.tick(5_000);
    assert.equal(client.state, "connected", "any reply proves that the connection is alive");
    fire(target, event);
    mock.timers.tick(5_000);
    await settle();
    assert.deepEqual([client.state, socket.isClosed], ["waiting", true], event);
    client.disconnect();
  }
});

test("a hidden page sends no probes", async (t) => {
  const { document, fire } = page(t);
  await connected();
  Object.assign(document, { visibilityState: "hidden", hidden: true });
  fire(document, "visibilitychange");
  assert.equal(sockets[0].count("ping"), 0);
});

test("the connection is probed after the machine was asleep", async () => {
  const client = await connected();
  mock.timers.tick(5_000);
  assert.equal(sockets[0].count("ping"), 0);
  // The clock advances while timers do not.
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 3_600_000 });
  const woken = await connected();
  const now = Date.now;
  Date.now = () => now() + 3_600_000;
  mock.timers.tick(5_000);
  Date.now = now;
  assert.equal(sockets.at(-1).count("ping"), 1);
  mock.timers.tick(5_000);
  await settle();
  assert.equal(woken.state, "waiting");
  client.disconnect();
});

test("a client disconnected while requesting a token stays disconnected", async () => {
  let refuse;
  const client = make({ getToken: () => new Promise((_, reject) => (refuse = reject)) });
  client.connect();
  await settle();
  client.disconnect();
  refuse(new Error("no backend"));
  await settle();
  mock.timers.tick(60_000);
  await settle();
  assert.deepEqual([client.state, sockets.length], ["disconnected", 0]);
});
