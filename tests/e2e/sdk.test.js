/**
 * The unmodified official JavaScript client, in JSON and Protobuf: the behaviour visible to its
 * users must be the same on every engine. The engines run concurrently: the tests mostly wait.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, describe, test } from "node:test";

import { Centrifuge as JsonClient } from "centrifuge";
import { Centrifuge as ProtobufClient } from "centrifuge/build/protobuf";
import WebSocket from "ws";

import { ENGINES } from "./engine.js";
import { CuttableProxy, TestServer, collect, inSeconds, next, token } from "./harness.js";

/** Conversion of payloads for the application: bytes with Protobuf. */
const codecs = {
  JSON: { Client: JsonClient, pack: (value) => value, unpack: (data) => data },
  Protobuf: {
    Client: ProtobufClient,
    pack: (value) => new TextEncoder().encode(JSON.stringify(value)),
    unpack: (data) => JSON.parse(new TextDecoder().decode(data)),
  },
};

describe("the official client", { concurrency: true }, () => {
  for (const [name, Engine] of Object.entries(ENGINES)) {
    describe(`on ${name}`, { concurrency: 1 }, () => everything(new Engine()));
  }
});

function everything(engine) {
  const server = new TestServer({}, engine);
  before(async () => {
    await engine.start();
    await server.start();
  });
  after(async () => {
    await server.stop();
    await engine.stop();
  });
  for (const [name, codec] of Object.entries(codecs)) {
    describe(name, () => suite(codec, server));
  }
  describe("both codecs on one channel", () => together(server));
  describe("with compression", () => compressed(engine));
  describe("many subscriptions of one client", () => many(engine));
}

function suite({ Client, pack, unpack }, server) {
  const make = (options = {}, url = server.url) => {
    const quick = { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 100 };
    const client = new Client(url, { ...quick, token: token({ sub: "ann" }), ...options });
    server.clients.push(client);
    return client;
  };
  const connected = async (options, url) => {
    const client = make(options, url);
    client.connect();
    await client.ready(5000);
    return client;
  };
  const subscribed = async (client, channel, options) => {
    const subscription = client.newSubscription(channel, options);
    subscription.subscribe();
    await subscription.ready(5000);
    return subscription;
  };
  let channels = 0;
  const fresh = (namespace) => `${namespace}:${channels++}-${Math.random()}`;
  const code = (wanted) => (error) => error.code === wanted || assert.fail(`expected ${wanted}, got ${error.code} ${error.message}`);

  describe("connect", () => {
    test("with a token", async () => {
      const client = make();
      const is = next(client, "connected");
      client.connect();
      const { client: id, transport } = await is;
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4/);
      assert.equal(transport, "websocket");
      client.disconnect();
    });

    test("invalid tokens and a missing token are refused permanently", async () => {
      for (const bad of ["nonsense", token({ sub: "ann" }, "another secret"), token({ sub: "ann", channel: "x" })]) {
        const client = make({ token: bad });
        const end = next(client, "disconnected");
        client.connect();
        assert.equal((await end).code, 3500);
      }
      const client = make({ token: undefined });
      const end = next(client, "disconnected");
      client.connect();
      assert.equal((await end).code, 3501);
    });

    test("an expired token is replaced", async () => {
      let asked = 0;
      const getToken = async () => (asked++, token({ sub: "ann" }));
      const client = await connected({ token: token({ sub: "ann", exp: inSeconds(-10) }), getToken });
      assert.equal(asked, 1);
      client.disconnect();
    });

    test("a connection outlives its token by refreshing it", async () => {
      let asked = 0;
      let refreshed;
      const again = new Promise((resolve) => (refreshed = resolve));
      const getToken = async () => {
        if (++asked === 3) refreshed();
        return token({ sub: "ann", exp: inSeconds(2) });
      };
      const client = await connected({ token: "", getToken });
      const cuts = collect(client, "connecting");
      await again;
      assert.deepEqual(cuts.seen, []);
      client.disconnect();
    });
  });

  describe("an application without a token", () => {
    const fails = (times, error) => {
      let asked = 0;
      return async () => {
        if (asked++ < times) throw error;
        return "";
      };
    };

    test("getToken is retried after an error, for a connection and for a subscription", async () => {
      const channel = fresh("closed");
      const failing = fails(2, new Error("the backend is away"));
      const getToken = async () => (await failing()) || token({ sub: "ann" });
      const client = make({ token: "", getToken });
      const errors = collect(client, "error");
      client.connect();
      await client.ready(5000);
      assert.equal(errors.seen.length, 2);
      const failingToo = fails(2, new Error("the backend is away"));
      const subscription = client.newSubscription(channel, {
        getToken: async () => (await failingToo()) || token({ sub: "ann", channel }),
        minResubscribeDelay: 10,
        maxResubscribeDelay: 20,
      });
      const subscriptionErrors = collect(subscription, "error");
      subscription.subscribe();
      await subscription.ready(5000);
      assert.equal(subscriptionErrors.seen.length, 2);
    });

    test("the client disconnects when getToken is unauthorized", async () => {
      const none = fails(Infinity, new Client.UnauthorizedError("none for you"));
      const client = make({ token: "", getToken: none });
      const end = next(client, "disconnected");
      client.connect();
      assert.equal((await end).code, 1);
      const allowed = await connected();
      const subscription = allowed.newSubscription(fresh("closed"), { getToken: none });
      const ended = next(subscription, "unsubscribed");
      subscription.subscribe();
      assert.equal((await ended).code, 1);
      await allowed.publish(fresh("open"), pack("still here"));
    });
  });

  describe("commands before the connection is ready", () => {
    test("commands wait for the connection", async () => {
      const channel = fresh("kept");
      const client = make();
      const commands = [client.publish(channel, pack(1)), client.history(channel, { limit: 1 }), client.rpc("x", pack(1))];
      client.connect();
      const [published, history, rpc] = await Promise.allSettled(commands);
      assert.equal(published.status, "fulfilled");
      assert.deepEqual(history.value.publications.map(({ data }) => unpack(data)), [1]);
      assert.equal(rpc.reason.code, 108);
    });

    test("connecting and disconnecting ten times leaves no presence", async () => {
      const channel = fresh("people");
      const watcher = await connected({ token: token({ sub: "watcher" }) });
      const leaves = collect(await subscribed(watcher, channel), "leave");
      const client = make();
      client.newSubscription(channel).subscribe();
      for (let count = 1; count <= 10; count++) {
        client.connect();
        await client.getSubscription(channel).ready(5000);
        assert.equal((await watcher.presenceStats(channel)).numClients, 2);
        client.disconnect();
        await leaves.take(count);
      }
      for (let count = 0; count < 10; count++) {
        client.connect();
        client.disconnect();
      }
      assert.equal(client.state, "disconnected");
      assert.equal((await watcher.presenceStats(channel)).numClients, 1);
      client.connect();
      await client.getSubscription(channel).ready(5000);
      assert.equal((await watcher.presenceStats(channel)).numClients, 2);
      assert.equal(leaves.seen.length, 10);
    });

    test("subscribing and unsubscribing without waiting applies the last call", async () => {
      const channel = fresh("kept");
      const client = await connected();
      const subscription = client.newSubscription(channel);
      const there = async () => {
        const { numClients, numUsers } = await client.presenceStats(channel);
        const { clients } = await client.presence(channel);
        return [numClients, numUsers, Object.keys(clients).length];
      };
      const toggle = () => {
        subscription.subscribe();
        subscription.unsubscribe();
      };
      for (let count = 0; count < 10; count++) toggle();
      assert.deepEqual(await there(), [0, 0, 0]);
      for (let count = 0; count < 10; count++) toggle();
      const seen = collect(subscription, "publication");
      subscription.subscribe();
      await subscription.ready(5000);
      assert.deepEqual(await there(), [1, 1, 1]);
      await client.publish(channel, pack("once"));
      await client.publish(channel, pack("last"));
      assert.deepEqual((await seen.take(2)).map(({ data }) => unpack(data)), ["once", "last"]);
      subscription.unsubscribe();
      assert.deepEqual(await there(), [0, 0, 0]);
    });

    test("unsubscribing while the connection is being established", async () => {
      const channel = fresh("kept");
      let sent = () => {};
      class Socket extends WebSocket {
        send(...parameters) {
          super.send(...parameters);
          sent();
        }
      }
      const client = make({ websocket: Socket });
      const subscription = client.newSubscription(channel);
      const isGone = async () => assert.equal((await client.presenceStats(channel)).numClients, 0);
      // After the connect command, before its reply.
      sent = () => {
        sent = () => {};
        assert.equal(client.state, "connecting");
        subscription.unsubscribe();
      };
      subscription.subscribe();
      client.connect();
      await client.ready(5000);
      assert.equal(subscription.state, "unsubscribed");
      await isGone();
      // Before any command is sent.
      subscription.subscribe();
      client.disconnect();
      client.connect();
      subscription.unsubscribe();
      await client.ready(5000);
      await isGone();
      const seen = next(subscription, "publication");
      subscription.subscribe();
      await subscription.ready(5000);
      await client.publish(channel, pack("heard"));
      assert.equal(unpack((await seen).data), "heard");
    });
  });

  describe("publish and subscribe", () => {
    test("client to client, API to client, in order", async () => {
      const channel = fresh("open");
      const reader = await subscribed(await connected(), channel);
      const writer = await connected({ token: token({ sub: "bob" }) });
      const seen = collect(reader, "publication");
      for (let index = 0; index < 20; index++) await writer.publish(channel, pack({ index }));
      await server.api("publish", { channel, data: { index: 20 }, tags: { from: "api" } });
      const publications = await seen.take(21);
      assert.deepEqual(publications.map(({ data }) => unpack(data).index), [...Array(21).keys()]);
      assert.equal(publications[0].info.user, "bob");
      assert.equal(publications[0].channel, channel);
      assert.deepEqual({ ...publications[20].tags }, { from: "api" });
    });

    test("unsubscribe ends a subscription, and the channel can be subscribed again", async () => {
      const channel = fresh("open");
      const subscription = await subscribed(await connected(), channel);
      const seen = collect(subscription, "publication");
      subscription.unsubscribe();
      await server.api("publish", { channel, data: 1 });
      subscription.subscribe();
      await subscription.ready(5000);
      await server.api("publish", { channel, data: 2 });
      assert.equal(unpack((await seen.take(1))[0].data), 2);
    });

    test("broadcast and batch reach their channels", async () => {
      const [one, two] = [fresh("open"), fresh("open")];
      const client = await connected();
      const first = collect(await subscribed(client, one), "publication");
      const second = collect(await subscribed(client, two), "publication");
      const { responses } = await server.api("broadcast", { channels: [one, two, "nowhere:x"], data: "all" });
      assert.deepEqual(responses.map(({ error }) => error?.code), [undefined, undefined, 102]);
      await first.take(1);
      await second.take(1);
    });
  });

  describe("presence", () => {
    test("presence, presence statistics, joins and leaves", async () => {
      const channel = fresh("people");
      const ann = await connected();
      const watching = await subscribed(ann, channel);
      const joins = collect(watching, "join");
      const leaves = collect(watching, "leave");
      const bob = await connected({ token: token({ sub: "bob", info: { name: "Bob" } }) });
      const subscription = await subscribed(bob, channel);
      // Ann's own join may be delivered too.
      while (!joins.seen.some(({ info }) => info.user === "bob")) await joins.take(joins.seen.length + 1);
      const { clients } = await ann.presence(channel);
      assert.deepEqual(Object.values(clients).map(({ user }) => user).sort(), ["ann", "bob"]);
      const present = Object.values(clients).find(({ user }) => user === "bob");
      assert.equal(unpack(present.connInfo).name, "Bob");
      const stats = await ann.presenceStats(channel);
      assert.deepEqual([stats.numClients, stats.numUsers], [2, 2]);
      subscription.unsubscribe();
      assert.equal((await leaves.take(1))[0].info.user, "bob");
      assert.equal((await ann.presenceStats(channel)).numClients, 1);
      assert.equal((await server.api("presence_stats", { channel })).num_users, 1);
    });
  });

  describe("history", () => {
    test("limit, since, reverse", async () => {
      const channel = fresh("kept");
      const client = await connected();
      for (let index = 1; index <= 5; index++) await client.publish(channel, pack(index));
      const offsets = ({ publications }) => publications.map(({ offset }) => Number(offset));
      const all = await client.history(channel, { limit: -1 });
      assert.deepEqual(offsets(all), [1, 2, 3, 4, 5]);
      assert.equal(Number(all.offset), 5);
      assert.deepEqual(offsets(await client.history(channel)), []);
      const since = { offset: 2, epoch: all.epoch };
      assert.deepEqual(offsets(await client.history(channel, { limit: 2, since })), [3, 4]);
      assert.deepEqual(offsets(await client.history(channel, { limit: 2, reverse: true })), [5, 4]);
      await assert.rejects(client.history(channel, { limit: 1, since: { offset: 2, epoch: "other" } }), code(112));
      await server.api("history_remove", { channel });
      assert.deepEqual(offsets(await client.history(channel, { limit: -1 })), []);
    });
  });

  describe("recovery", () => {
    test("publications during a disconnect are recovered once and in order", async () => {
      const channel = fresh("kept");
      const proxy = await new CuttableProxy().open(server.port);
      const subscription = await subscribed(await connected({}, proxy.url), channel);
      const seen = collect(subscription, "publication");
      await server.api("publish", { channel, data: 1 });
      await seen.take(1);
      const back = next(subscription, "subscribed");
      proxy.cut();
      for (const data of [2, 3, 4]) await server.api("publish", { channel, data });
      proxy.restore();
      const { wasRecovering, recovered } = await back;
      assert.deepEqual([wasRecovering, recovered], [true, true]);
      await server.api("publish", { channel, data: 5 });
      assert.deepEqual((await seen.take(5)).map(({ data }) => unpack(data)), [1, 2, 3, 4, 5]);
      proxy.close();
    });

    test("a gap beyond the history is reported", async () => {
      const channel = fresh("kept");
      const proxy = await new CuttableProxy().open(server.port);
      const subscription = await subscribed(await connected({}, proxy.url), channel);
      await server.api("publish", { channel, data: 0 });
      const back = next(subscription, "subscribed");
      proxy.cut();
      for (let data = 1; data <= 60; data++) await server.api("publish", { channel, data });
      proxy.restore();
      const { wasRecovering, recovered } = await back;
      assert.deepEqual([wasRecovering, recovered], [true, false]);
      proxy.close();
    });

    test("application state and stream are combined without a gap, also after the position is lost", async () => {
      const channel = fresh("kept");
      const proxy = await new CuttableProxy().open(server.port);
      await server.api("publish", { channel, data: "part of the state" });
      let asked = 0;
      const getState = async () => {
        const { offset, epoch } = await server.api("history", { channel, limit: 0 });
        await server.api("publish", { channel, data: `after state ${++asked}` });
        return { offset, epoch };
      };
      const client = await connected({}, proxy.url);
      const delays = { minResubscribeDelay: 10, maxResubscribeDelay: 20 };
      const subscription = await subscribed(client, channel, { getState, ...delays });
      const texts = (publications) => publications.map(({ data }) => unpack(data));
      const seen = collect(subscription, "publication");
      const begun = collect(subscription, "subscribed");

      // The server recovers: the state is not requested.
      proxy.cut();
      await server.api("publish", { channel, data: "in the cut" });
      proxy.restore();
      assert.equal((await begun.take(1))[0].recovered, true);
      assert.equal(asked, 1);

      // A gap beyond the history: the state is requested again, and the stream continues after it.
      proxy.cut();
      for (let data = 0; data < 60; data++) await server.api("publish", { channel, data });
      proxy.restore();
      assert.equal((await begun.take(2))[1].recovered, true);
      await server.api("publish", { channel, data: "live" });
      assert.deepEqual(texts(await seen.take(3)).slice(-3), ["in the cut", "after state 2", "live"]);
      assert.equal(asked, 2);
      proxy.close();
    });

    test("a cache channel delivers its newest publication", async () => {
      const channel = fresh("cache");
      await server.api("publish", { channel, data: "old" });
      await server.api("publish", { channel, data: "new" });
      const client = await connected();
      const subscription = client.newSubscription(channel, { since: { offset: 0, epoch: "" } });
      const seen = collect(subscription, "publication");
      subscription.subscribe();
      assert.equal(unpack((await seen.take(1))[0].data), "new");
    });
  });

  describe("refusals", () => {
    const refused = async (channel, options) => {
      const subscription = (await connected()).newSubscription(channel, options);
      const end = next(subscription, "unsubscribed");
      subscription.subscribe();
      return (await end).code;
    };

    test("of a subscription", async () => {
      assert.equal(await refused("nowhere:x"), 102);
      assert.equal(await refused(fresh("closed")), 103);
      assert.equal(await refused("open:" + "x".repeat(255)), 107);
      const client = await connected();
      for (let index = 0; index < 8; index++) await subscribed(client, fresh("open"));
      const ninth = client.newSubscription(fresh("open"));
      const end = next(ninth, "unsubscribed");
      ninth.subscribe();
      assert.equal((await end).code, 106);
    });

    test("of a command", async () => {
      const client = await connected();
      await assert.rejects(client.publish(fresh("closed"), pack(1)), code(103));
      await assert.rejects(client.publish("nowhere:x", pack(1)), code(102));
      await assert.rejects(client.history(fresh("open"), { limit: 1 }), code(108));
      await assert.rejects(client.presence(fresh("open")), code(108));
      await assert.rejects(client.rpc("method", pack(1)), code(108));
    });

    test("of a token for another channel, or of another user", async () => {
      for (const claims of [{ sub: "ann", channel: "closed:other" }, { sub: "bob", channel: "closed:mine" }]) {
        const client = await connected();
        const end = next(client, "disconnected");
        client.newSubscription("closed:mine", { token: token(claims) }).subscribe();
        assert.equal((await end).code, 3500);
      }
    });
  });

  describe("subscription tokens", () => {
    test("open a closed channel, and are refreshed", async () => {
      const channel = fresh("closed");
      let asked = 0;
      const refreshed = new Promise((resolve) => {
        const getToken = async () => {
          if (++asked === 3) resolve();
          return token({ sub: "ann", channel, exp: inSeconds(2) });
        };
        connected().then((client) => subscribed(client, channel, { getToken }));
      });
      await refreshed;
    });

    test("an expired token is replaced", async () => {
      const channel = fresh("closed");
      const expired = token({ sub: "ann", channel, exp: inSeconds(-10) });
      const getToken = async () => token({ sub: "ann", channel });
      const subscription = await subscribed(await connected(), channel, { token: expired, getToken });
      assert.equal(subscription.state, "subscribed");
    });
  });

  describe("server-side subscriptions", () => {
    test("from the token, recovered after a cut", async () => {
      const channel = fresh("kept");
      const proxy = await new CuttableProxy().open(server.port);
      const client = make({ token: token({ sub: "ann", channels: [channel] }) }, proxy.url);
      const begun = next(client, "subscribed");
      const seen = collect(client, "publication");
      client.connect();
      assert.equal((await begun).channel, channel);
      await server.api("publish", { channel, data: 1 });
      await seen.take(1);
      const back = next(client, "subscribed");
      proxy.cut();
      await server.api("publish", { channel, data: 2 });
      proxy.restore();
      assert.equal((await back).recovered, true);
      assert.deepEqual((await seen.take(2)).map(({ data }) => unpack(data)), [1, 2]);
      proxy.close();
    });

    test("from the API, and ended by it", async () => {
      const [user, channel] = [`carol-${Math.random()}`, fresh("open")];
      const client = await connected({ token: token({ sub: user }) });
      const begun = next(client, "subscribed");
      await server.api("subscribe", { user, channel });
      assert.equal((await begun).channel, channel);
      const seen = next(client, "publication");
      await server.api("publish", { channel, data: "x" });
      assert.equal((await seen).channel, channel);
      const ended = next(client, "unsubscribed");
      await server.api("unsubscribe", { user, channel });
      assert.equal((await ended).channel, channel);
    });

    test("the API ends client-side subscriptions and connections", async () => {
      const user = `dave-${Math.random()}`;
      const client = await connected({ token: token({ sub: user }) });
      const subscription = await subscribed(client, fresh("open"));
      const ended = next(subscription, "unsubscribed");
      await server.api("unsubscribe", { user, channel: subscription.channel });
      assert.equal((await ended).code, 2000);
      const end = next(client, "disconnected");
      await server.api("disconnect", { user });
      assert.equal((await end).code, 3503);
    });

    test("the API disconnects with a given code", async () => {
      const user = `erin-${Math.random()}`;
      const client = await connected({ token: token({ sub: user }) });
      const end = next(client, "disconnected");
      await server.api("disconnect", { user, disconnect: { code: 4500, reason: "banned" } });
      assert.deepEqual(await end, { code: 4500, reason: "banned" });
    });

    test("the API extends and expires a connection", async () => {
      const user = `frank-${Math.random()}`;
      const client = await connected({ token: token({ sub: user, exp: inSeconds(600) }) });
      await server.api("refresh", { user, expire_at: inSeconds(1200) });
      const cut = next(client, "connecting", ({ code }) => code === 3005);
      await server.api("refresh", { user, expired: true });
      await cut;
    });
  });
}

function together(server) {
  const connect = async (Client) => {
    const client = new Client(server.url, { websocket: WebSocket, token: token({ sub: "ann" }) });
    server.clients.push(client);
    client.connect();
    await client.ready(5000);
    return client;
  };

  test("each client receives the publication in its own codec", async () => {
    const channel = `open:both-${Math.random()}`;
    const seen = [];
    for (const { Client } of Object.values(codecs)) {
      const subscription = (await connect(Client)).newSubscription(channel);
      seen.push(collect(subscription, "publication"));
      subscription.subscribe();
      await subscription.ready(5000);
    }
    await server.api("publish", { channel, data: { n: 1 } });
    assert.deepEqual((await seen[0].take(1))[0].data, { n: 1 });
    assert.equal(new TextDecoder().decode((await seen[1].take(1))[0].data), '{"n":1}');
  });

  test("a JSON client skips a publication that is not JSON and is notified once", async () => {
    const channel = `binary:both-${Math.random()}`;
    const json = await connect(JsonClient);
    const protobuf = await connect(ProtobufClient);
    for (const client of [json, protobuf]) {
      const subscription = client.newSubscription(channel);
      subscription.subscribe();
      await subscription.ready(5000);
    }
    const seen = next(protobuf.getSubscription(channel), "publication");
    const notices = collect(json, "message");
    const publications = collect(json.getSubscription(channel), "publication");
    for (const bytes of [[0xff, 0x00, 0x7b], [0xfe]]) {
      await server.api("publish", { channel, b64data: Buffer.from(bytes).toString("base64") });
    }
    assert.deepEqual([...(await seen).data], [0xff, 0x00, 0x7b]);
    await server.api("publish", { channel, data: { still: "here" } });
    assert.deepEqual((await publications.take(1))[0].data, { still: "here" });
    assert.equal((await notices.take(1))[0].data.notice, "publication skipped");
    assert.equal(json.state, "connected");
  });
}

function compressed(engine) {
  const compressing = new TestServer({ websocket: { compression: true, compression_level: 6 } }, engine);
  before(() => compressing.start());
  after(() => compressing.stop());

  test("large compressed messages are sent in both directions", async () => {
    let socket;
    class Socket extends WebSocket {
      constructor(...parameters) {
        super(...parameters);
        socket = this;
      }
    }
    const client = new JsonClient(compressing.url, { websocket: Socket, token: token({ sub: "ann" }) });
    const subscription = client.newSubscription("open:large");
    const seen = collect(subscription, "publication");
    subscription.subscribe();
    client.connect();
    await subscription.ready(5000);
    assert.match(socket.extensions, /permessage-deflate/);
    const text = "all work and no play ".repeat(2500);
    for (let index = 0; index < 5; index++) await client.publish("open:large", { index, text });
    const publications = await seen.take(5);
    assert.deepEqual(publications.map(({ data }) => data.index), [0, 1, 2, 3, 4]);
    assert.ok(publications.every(({ data }) => data.text === text));
    const received = socket._socket.bytesRead;
    assert.ok(received < text.length, `${received} bytes for five times ${text.length}`);
    client.disconnect();
  });

  test("a peer with a small window can decompress broadcasts", async () => {
    const read = async (serverMaxWindowBits) => {
      let socket;
      class Socket extends WebSocket {
        constructor(url, protocols) {
          super(url, protocols, { perMessageDeflate: { serverMaxWindowBits } });
          socket = this;
        }
      }
      const client = new JsonClient(compressing.url, { websocket: Socket, token: token({ sub: "ann" }) });
      compressing.clients.push(client);
      const subscription = client.newSubscription("open:windows");
      subscription.subscribe();
      client.connect();
      await subscription.ready(5000);
      return { socket, seen: collect(subscription, "publication") };
    };
    const readers = [await read(15), await read(14), await read(9)];
    // The text repeats at a distance beyond a small window.
    const text = createHash("shake128", { outputLength: 1024 }).digest("hex").repeat(25);
    await compressing.api("publish", { channel: "open:windows", data: text });
    for (const { seen } of readers) assert.equal((await seen.take(1))[0].data, text);
    const sizes = readers.map(({ socket }) => socket._socket.bytesRead);
    for (const { socket } of readers) assert.match(socket.extensions, /permessage-deflate/);
    const isSmall = (size) => size > text.length * 0.4 && size < text.length * 0.7;
    assert.ok(sizes[0] < text.length * 0.1, `read ${sizes} bytes of ${text.length}`);
    assert.ok(isSmall(sizes[1]) && isSmall(sizes[2]), `read ${sizes} bytes of ${text.length}`);
  });
}

function many(engine) {
  const roomy = new TestServer({ client: { channel_limit: 1000 } }, engine);
  before(() => roomy.start());
  after(() => roomy.stop());

  for (const [name, { Client, unpack }] of Object.entries(codecs)) {
    test(`${name}: 500 concurrent subscriptions each receive their own publications and end`, async () => {
      const client = new Client(roomy.url, { websocket: WebSocket, token: token({ sub: "ann" }) });
      roomy.clients.push(client);
      const channels = [...Array(500).keys()].map((index) => `kept:${name}-${index}`);
      const subscriptions = channels.map((channel) => client.newSubscription(channel));
      const heard = subscriptions.map((subscription) => collect(subscription, "publication"));
      for (const subscription of subscriptions) subscription.subscribe();
      client.connect();
      await Promise.all(subscriptions.map((subscription) => subscription.ready(10_000)));
      const publishes = channels.map((channel) => ({ publish: { channel, data: channel } }));
      await roomy.api("batch", { commands: publishes });
      for (const [index, { take }] of heard.entries()) {
        assert.deepEqual((await take(1)).map(({ data }) => unpack(data)), [channels[index]]);
      }
      for (const subscription of subscriptions) subscription.unsubscribe();
      for (const channel of [channels[0], channels[499]]) {
        assert.equal((await client.presenceStats(channel)).numClients, 0);
      }
      assert.deepEqual(heard.map(({ seen }) => seen.length), Array(500).fill(1));
    });
  }
}
