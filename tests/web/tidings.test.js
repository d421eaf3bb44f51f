/**
 * The browser client against a socket that is played by hand: order, recovery, tokens, pings, back-off.
 */
import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";

import { Tidings, TidingsError, backoff } from "../../web/tidings.js";

/** All sockets ever made, newest last. */
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

  /** Answers the last command of that kind. */
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

/** Lets promises that are settled run their continuations. */
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

/** The newest socket opens, and the server accepts. */
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

test("comes back where it was, without twins, and tells how much was missed", async () => {
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

test("a gap is told, and the new position holds", async () => {
  const client = await connected();
  const subscription = await subscribed(client);
  const recoveries = [];
  subscription.on("recovered", ({ recovered }) => recoveries.push(recovered));
  sockets[0].onclose({ code: 3001, reason: "shutdown" });
  mock.timers.tick(300);
  let socket = await open(client);
  socket.answer("subscribe", { recoverable: true, was_recovering: true, offset: 900, epoch: "other" });
  assert.deepEqual(recoveries, [false]);
  socket.onclose({ code: 1006, reason: "" });
  mock.timers.tick(300);
  socket = await open(client);
  assert.deepEqual([socket.last("subscribe").subscribe.offset, socket.last("subscribe").subscribe.epoch], [900, "other"]);
});

test("a final code ends it, others do not", async () => {
  for (const [code, state] of [[3500, "disconnected"], [4500, "disconnected"], [1009, "disconnected"], [3001, "waiting"], [1006, "waiting"]]) {
    const client = await connected();
    sockets.at(-1).onclose({ code, reason: "because" });
    assert.equal(client.state, state, String(code));
    client.disconnect();
  }
});

test("silence beyond the ping interval is a cut", async () => {
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

test("waits longer each time, until a connection succeeds", async () => {
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
  assert.deepEqual(waits, [300, 600, 1200, 2400, 300]);
  assert.equal(sockets.length, 5);
  client.connect();
  await settle();
  assert.equal(sockets.length, 6, "connect() does not wait");
});

test("an expired token is replaced, also before its time is over", async () => {
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

test("a refusal of a subscription ends it, a temporary one is tried again", async () => {
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

test("the server ends subscriptions for good, or only for now", async () => {
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

test("commands fail when there is no connection, no answer, or an error", async () => {
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

test("leaving a channel and the server", async () => {
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

test("a connection that is cut while a subscription is asked for asks again", async () => {
  const client = await connected();
  client.subscribe("news");
  sockets[0].onclose({ code: 1006, reason: "" });
  await settle();
  mock.timers.tick(300);
  const socket = await open(client);
  assert.equal(socket.count("subscribe"), 1);
});
