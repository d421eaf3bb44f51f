/**
 * The browser client of Tidings: one connection, any number of subscriptions, all of which come back by themselves.
 *
 *     import { Tidings } from "./tidings.js";
 *     const client = new Tidings("ws://127.0.0.1:8000/connection/websocket", { getToken });
 *     const chat = client.subscribe("chat:lobby");
 *     chat.on("publication", ({ data }) => console.log(data));
 *     client.connect();
 *     await chat.publish({ text: "hello" });
 *
 * Invariant: a publication is handed out once and in order, or `recovered` says that some are missing.
 */

const COMMAND_TIMEOUT_MS = 5_000;
/** Silence beyond the server's ping interval after which a connection counts as dead. */
const PING_GRACE_MS = 10_000;
const BACKOFF = { firstMs: 300, mostMs: 20_000 };
const TOKEN_EXPIRED = 109;
/** The server holds tokens and positions void: of the whole connection, or of one subscription. */
const STATE_INVALIDATED = 3014;
const SUBSCRIPTION_INVALIDATED = 2502;

/** An error reply of the server, or one of ours: code 0 for "not connected", 1 for "no answer in time". */
export class TidingsError extends Error {
  constructor({ code, message, temporary = false }) {
    super(message);
    this.name = "TidingsError";
    this.code = code;
    this.temporary = temporary;
  }
}

const notConnected = () => new TidingsError({ code: 0, message: "not connected", temporary: true });

/** Close and unsubscribe codes after which the client must not come back by itself. */
const isFinalClose = (code) => code === 1009 || (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);
const isFinalUnsubscribe = (code) => code < 2500;

/** Exponential back-off with full jitter: clients of a server that restarts do not all come at once. */
export function backoff(attempt, random = Math.random) {
  const most = Math.min(BACKOFF.mostMs, BACKOFF.firstMs * 2 ** Math.min(attempt, 16));
  return Math.round(most * random());
}

/** Handlers by event; `on` returns a function that takes the handler away again. */
class Emitter {
  #handlers = new Map();

  on(event, handler) {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    return () => handlers.delete(handler);
  }

  emit(event, detail) {
    for (const handler of this.#handlers.get(event) ?? []) handler(detail);
  }
}

/**
 * A connection. Events: `state` with `{ state, reason?, code?, retryMs? }`, where state is "disconnected", "connecting",
 * "connected" or "waiting"; `error`; and, for channels that the server subscribed, `publication`, `join`, `leave` with
 * the channel.
 *
 * Options: `token`, or `getToken()` which gives one (and is asked again when it has expired); `data` for the connect
 * command; `name`; `WebSocket` and `random` for tests.
 */
export class Tidings extends Emitter {
  state = "disconnected";
  /** The id that the server gave this connection. */
  clientId = "";
  #url;
  #options;
  #token;
  #socket = null;
  #pending = new Map();
  #lastId = 0;
  #subscriptions = new Map();
  #attempt = 0;
  #timers = { retry: 0, ping: 0, refresh: 0 };
  #pingMs = 0;
  #answersPings = false;

  constructor(url, options = {}) {
    super();
    this.#url = url;
    this.#options = { name: "tidings.js", random: Math.random, WebSocket: globalThis.WebSocket, ...options };
    this.#token = options.token ?? "";
    // Waiting out the back-off makes no sense once the network is back.
    globalThis.addEventListener?.("online", () => this.state === "waiting" && this.#open());
  }

  /** Connects; while waiting to reconnect, at once. */
  connect() {
    if (this.state === "disconnected") this.#attempt = 0;
    if (this.state === "disconnected" || this.state === "waiting") this.#open();
  }

  disconnect() {
    this.#end({ reason: "disconnected by the page" });
  }

  /** The subscription to a channel; the same one when it exists already. Options: see Subscription. */
  subscribe(channel, options = {}) {
    const known = this.#subscriptions.get(channel);
    if (known && known.state !== "unsubscribed") return known;
    const subscription = new Subscription(this, channel, options);
    this.#subscriptions.set(channel, subscription);
    subscription.start();
    return subscription;
  }

  /**
   * Sends a command and gives its result; fails with TidingsError. `onResult` gets the result before anything that
   * the server said after it is handled; a promise could be too late for that.
   */
  call(method, params, onResult) {
    if (this.state !== "connected") return Promise.reject(notConnected());
    return this.#send(method, params, onResult);
  }

  publish(channel, data) {
    return this.call("publish", { channel, data });
  }

  /** Who is in a channel: an object from client id to `{ user, client, … }`. */
  async presence(channel) {
    return (await this.call("presence", { channel })).presence;
  }

  /** Retained publications; `limit` −1 is as many as the server gives. */
  history(channel, { limit = -1, since, reverse } = {}) {
    return this.call("history", { channel, limit, since, reverse });
  }

  forget(subscription) {
    this.#subscriptions.delete(subscription.channel);
  }

  #setState(state, detail = {}) {
    this.state = state;
    this.emit("state", { state, ...detail });
  }

  async #open() {
    clearTimeout(this.#timers.retry);
    this.#setState("connecting");
    try {
      if (!this.#token && this.#options.getToken) this.#token = await this.#options.getToken();
    } catch (error) {
      return this.#wait(`no token: ${error.message}`);
    }
    if (this.state !== "connecting" || this.#socket) return;
    const socket = new this.#options.WebSocket(this.#url, "centrifuge-json");
    this.#socket = socket;
    this.#watch(COMMAND_TIMEOUT_MS);
    socket.onopen = () => this.#greet();
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#socket === socket && this.#closed(code, reason);
  }

  async #greet() {
    const { data, name } = this.#options;
    const params = { token: this.#token || undefined, data, name };
    try {
      await this.#send("connect", params, (result) => this.#connected(result));
    } catch (error) {
      if (this.state !== "connecting") return;
      if (error.code === TOKEN_EXPIRED) this.#token = "";
      const canRetry = error.temporary || (error.code === TOKEN_EXPIRED && this.#options.getToken);
      if (canRetry) this.#wait(error.message);
      else this.#end({ code: error.code, reason: error.message });
    }
  }

  #connected(result) {
    this.clientId = result.client;
    this.#attempt = 0;
    this.#pingMs = (result.ping ?? 0) * 1000;
    this.#answersPings = result.pong === true;
    this.#watch(this.#pingMs && this.#pingMs + PING_GRACE_MS);
    this.#refreshIn(result.ttl);
    this.#setState("connected");
    for (const subscription of this.#subscriptions.values()) subscription.start();
  }

  #send(method, params, onResult) {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new TidingsError({ code: 1, message: "no answer in time", temporary: true }));
      }, COMMAND_TIMEOUT_MS);
      this.#pending.set(id, { method, resolve, reject, timer, onResult });
      this.#socket.send(JSON.stringify({ id, [method]: params }));
    });
  }

  #receive(text) {
    this.#watch(this.#pingMs && this.#pingMs + PING_GRACE_MS);
    for (const line of text.split("\n")) {
      if (!line) continue;
      const reply = JSON.parse(line);
      if (reply.id) this.#settle(reply);
      else if (reply.push) this.#push(reply.push);
      else if (this.#answersPings) this.#socket?.send("{}");
    }
  }

  #settle({ id, error, ...result }) {
    const waiting = this.#pending.get(id);
    if (!waiting) return;
    this.#pending.delete(id);
    clearTimeout(waiting.timer);
    if (error) return waiting.reject(new TidingsError(error));
    waiting.onResult?.(result[waiting.method] ?? {});
    waiting.resolve(result[waiting.method] ?? {});
  }

  #push({ channel, pub, join, leave, unsubscribe, disconnect }) {
    if (disconnect) return this.#closed(disconnect.code, disconnect.reason);
    const target = this.#subscriptions.get(channel) ?? this;
    if (pub) target === this ? this.emit("publication", { ...pub, channel }) : target.take(pub);
    if (join) target.emit("join", { ...join.info, channel });
    if (leave) target.emit("leave", { ...leave.info, channel });
    if (unsubscribe && target !== this) target.ended(unsubscribe);
  }

  /** A connection that says nothing for so long is dead; 0 for one that may be silent. */
  #watch(ms) {
    clearTimeout(this.#timers.ping);
    if (ms) this.#timers.ping = setTimeout(() => this.#closed(1006, "the server is silent"), ms);
  }

  #refreshIn(ttl) {
    clearTimeout(this.#timers.refresh);
    if (ttl) this.#timers.refresh = setTimeout(() => this.#refresh(), ttl * 1000);
  }

  async #refresh() {
    try {
      this.#token = await this.#options.getToken?.();
      if (!this.#token) return this.#end({ reason: "the token has expired" });
      if (this.state === "connected") this.#refreshIn((await this.call("refresh", { token: this.#token })).ttl);
    } catch (error) {
      this.emit("error", error);
      if (this.state === "connected") this.#refreshIn(5);
    }
  }

  #closed(code, reason) {
    if (code === STATE_INVALIDATED) this.#forgetState();
    if (isFinalClose(code)) this.#end({ code, reason });
    else this.#wait(reason || "the connection was cut");
  }

  #wait(reason) {
    const retryMs = backoff(this.#attempt++, this.#options.random);
    this.#drop();
    this.#timers.retry = setTimeout(() => this.#open(), retryMs);
    this.#setState("waiting", { reason, retryMs });
  }

  #forgetState() {
    this.#token = "";
    for (const subscription of this.#subscriptions.values()) subscription.forgetState();
  }

  #end(detail) {
    this.#drop();
    this.#setState("disconnected", detail);
  }

  /** Lets go of the socket and of everybody who waits for an answer. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    for (const { reject, timer } of this.#pending.values()) {
      clearTimeout(timer);
      reject(notConnected());
    }
    this.#pending.clear();
    this.clientId = "";
    for (const subscription of this.#subscriptions.values()) subscription.interrupted();
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }
}

/**
 * A subscription to one channel. Events: `state` with `{ state, reason?, code? }`, where state is "subscribing",
 * "subscribed" or "unsubscribed"; `publication`; `join`; `leave`; and after a cut `recovered` with
 * `{ recovered, count }`: how many publications were missed and are handed out now, or `recovered: false` when some are
 * lost. Options: `getToken(channel)`, `data`, and `since` with `{ offset, epoch }` to start behind a known position.
 */
export class Subscription extends Emitter {
  state = "subscribing";
  #client;
  #options;
  #token = "";
  #position;
  #attempt = 0;
  #timers = { retry: 0, refresh: 0 };
  #isAsking = false;

  constructor(client, channel, options) {
    super();
    this.channel = channel;
    this.#client = client;
    this.#options = options;
    this.#position = options.since ?? null;
  }

  publish(data) {
    return this.#client.publish(this.channel, data);
  }

  presence() {
    return this.#client.presence(this.channel);
  }

  history(options) {
    return this.#client.history(this.channel, options);
  }

  /** Leaves the channel for good. */
  unsubscribe() {
    if (this.#client.state === "connected") this.#client.call("unsubscribe", { channel: this.channel }).catch(() => {});
    this.#client.forget(this);
    this.ended({ code: 0, reason: "unsubscribed by the page" });
  }

  async start() {
    if (this.#client.state !== "connected" || this.#isAsking || this.state !== "subscribing") return;
    this.#isAsking = true;
    const connection = this.#client.clientId;
    try {
      if (!this.#token && this.#options.getToken) this.#token = await this.#options.getToken(this.channel);
      const position = this.#position && { recover: true, ...this.#position };
      const params = { channel: this.channel, token: this.#token || undefined, data: this.#options.data };
      const flags = { recoverable: true, join_leave: true };
      const begin = (result) => this.#begin(result);
      await this.#client.call("subscribe", { ...params, ...flags, ...position }, begin);
    } catch (error) {
      if (connection === this.#client.clientId) this.#failed(error);
    } finally {
      this.#isAsking = false;
      // The connection may have been cut and restored meanwhile, with nobody to ask again.
      if (this.state === "subscribing" && connection !== this.#client.clientId) this.start();
    }
  }

  #begin(result) {
    this.#attempt = 0;
    const { recoverable, offset = 0, epoch = "", publications = [] } = result;
    this.#position = recoverable ? { offset, epoch } : null;
    this.#refreshIn(result.ttl);
    this.#setState("subscribed", { data: result.data });
    if (result.was_recovering) {
      this.emit("recovered", { recovered: result.recovered === true, count: publications.length });
    }
    for (const publication of publications) this.take(publication);
  }

  #failed(error) {
    if (error.code === TOKEN_EXPIRED) this.#token = "";
    const canRetry = error.temporary || (error.code === TOKEN_EXPIRED && this.#options.getToken);
    if (!canRetry && error.code !== undefined) return this.ended({ code: error.code, reason: error.message });
    this.emit("error", error);
    this.#timers.retry = setTimeout(() => this.start(), backoff(this.#attempt++));
  }

  #refreshIn(ttl) {
    clearTimeout(this.#timers.refresh);
    if (ttl) this.#timers.refresh = setTimeout(() => this.#refresh(), ttl * 1000);
  }

  async #refresh() {
    try {
      this.#token = (await this.#options.getToken?.(this.channel)) ?? "";
      if (this.state !== "subscribed") return;
      this.#refreshIn((await this.#client.call("sub_refresh", { channel: this.channel, token: this.#token })).ttl);
    } catch (error) {
      this.emit("error", error);
      if (this.state === "subscribed") this.#refreshIn(10);
    }
  }

  #setState(state, detail = {}) {
    this.state = state;
    this.emit("state", { state, ...detail });
  }

  /** A publication has arrived. */
  take(publication) {
    if (publication.offset && this.#position) {
      if (publication.offset <= this.#position.offset) return;
      this.#position.offset = publication.offset;
    }
    this.emit("publication", publication);
  }

  /** The connection is gone; the position stays. */
  interrupted() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    if (this.state === "subscribed") this.#setState("subscribing");
  }

  /** The server, or the page, has ended the subscription. */
  ended({ code, reason }) {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    if (code === SUBSCRIPTION_INVALIDATED) this.forgetState();
    this.#setState(isFinalUnsubscribe(code) ? "unsubscribed" : "subscribing", { code, reason });
    this.start();
  }

  forgetState() {
    this.#token = "";
    this.#position = null;
  }
}
