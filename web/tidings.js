/**
 * The browser client of Tidings: one connection and any number of subscriptions. Both are restored
 * automatically.
 *
 *     import { Tidings } from "./tidings.js";
 *     const client = new Tidings("ws://127.0.0.1:8000/connection/websocket", { getToken });
 *     const chat = client.subscribe("chat:lobby");
 *     chat.on("publication", ({ data }) => console.log(data));
 *     client.connect();
 *     await chat.publish({ text: "hello" });
 *
 * Invariant: publications are emitted once and in order, or the event `recovered` reports that some
 * are missing. No server behaviour and no token lifetime makes it reconnect faster than its
 * back-off.
 */

const COMMAND_TIMEOUT_MS = 5_000;
/** Time without data, beyond the server's ping interval, after which a connection is closed. */
const PING_GRACE_MS = 10_000;
const BACKOFF = { firstMs: 300, mostMs: 20_000 };
/** Lifetime after which a connection or subscription is stable: the back-off starts again. */
const STABLE_AFTER_MS = 5_000;
/** Maximum delay of setTimeout; it fires immediately for longer ones. */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;
/** Interval of clock checks, and the delay of one that indicates that the machine was asleep. */
const CLOCK = { everyMs: 5_000, lateMs: 10_000 };
const TOKEN_EXPIRED = 109;
/** The server has invalidated tokens and positions: of the connection, or of one subscription. */
const STATE_INVALIDATED = 3014;
const SUBSCRIPTION_INVALIDATED = 2502;

/** An error reply of the server, or a local error: code 0 for "not connected", 1 for a timeout. */
export class TidingsError extends Error {
  constructor({ code, message, temporary = false }) {
    super(message);
    this.name = "TidingsError";
    this.code = code;
    this.temporary = temporary;
  }
}

const notConnected = () => new TidingsError({ code: 0, message: "not connected", temporary: true });

/** Close and unsubscribe codes after which the client must not reconnect or resubscribe. */
const isFinalClose = (code) => code === 1009 || (code >= 3500 && code < 4000) || (code >= 4500 && code < 5000);
const isFinalUnsubscribe = (code) => code < 2500;

/** Exponential back-off with full jitter: spreads the reconnects after a restart of the server. */
export function backoff(attempt, random = Math.random) {
  const most = Math.min(BACKOFF.mostMs, BACKOFF.firstMs * 2 ** Math.min(attempt, 16));
  return Math.round(most * random());
}

/** Timers by name; setting one again replaces it. */
class Timers {
  #handles = new Map();

  set(name, ms, run) {
    this.clear(name);
    const part = Math.min(ms, TIMEOUT_MAX_MS);
    const next = () => (ms > part ? this.set(name, ms - part, run) : run());
    this.#handles.set(name, setTimeout(next, part));
  }

  clear(name) {
    clearTimeout(this.#handles.get(name));
    this.#handles.delete(name);
  }

  clearAll() {
    for (const name of [...this.#handles.keys()]) this.clear(name);
  }
}

/** Counts consecutive failed attempts. */
class Attempts {
  #count = 0;
  #since = null;

  /** The attempt succeeded now. */
  succeeded() {
    this.#since = Date.now();
  }

  /** Returns the number of failed attempts before this one. */
  failed() {
    if (this.#since !== null && Date.now() - this.#since >= STABLE_AFTER_MS) this.#count = 0;
    this.#since = null;
    return this.#count++;
  }

  reset() {
    this.#count = 0;
    this.#since = null;
  }
}

/** Event handlers; `on` returns a function that removes the handler. */
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
 * A connection. Events: `state` with `{ state, reason?, code?, retryMs? }`, where state is
 * "disconnected", "connecting", "connected" or "waiting"; `error`; and, for channels that the
 * server subscribed, `publication`, `join`, `leave` with the channel.
 *
 * Options: `token`, or `getToken()`, which returns a token or a promise of one and is called again
 * after expiry; `data` for the connect command; `name`; `WebSocket` and `random` for tests.
 *
 * In a browser it closes its connection on `pagehide`, so that the page is eligible for the
 * back-forward cache. When the page is shown again, the network is online again or the machine was
 * asleep, it reconnects or checks the connection with a ping.
 */
export class Tidings extends Emitter {
  state = "disconnected";
  /** Client id assigned by the server; empty while not connected. */
  clientId = "";
  #url;
  #options;
  #token;
  #socket = null;
  #pending = new Map();
  #lastId = 0;
  #subscriptions = new Map();
  #attempts = new Attempts();
  #timers = new Timers();
  #pingMs = 0;
  #answersPings = false;
  /** Removes the listeners for page and network events. */
  #watch = null;
  #isAway = false;
  #isProbing = false;

  constructor(url, options = {}) {
    super();
    this.#url = url;
    this.#options = { name: "tidings.js", random: Math.random, WebSocket: globalThis.WebSocket, ...options };
    this.#token = options.token ?? "";
  }

  /** Connects, without waiting for the back-off. */
  connect() {
    if (this.state === "disconnected") this.#attempts.reset();
    if (this.state !== "disconnected" && this.state !== "waiting") return;
    this.#watchPage();
    this.#open();
  }

  disconnect() {
    this.#end({ reason: "disconnected by the page" });
  }

  /** Returns the subscription to a channel; creates it if necessary. Options: see Subscription. */
  subscribe(channel, options = {}) {
    const known = this.#subscriptions.get(channel);
    if (known && known.state !== "unsubscribed") return known;
    const subscription = new Subscription(this, channel, options);
    this.#subscriptions.set(channel, subscription);
    subscription.start();
    return subscription;
  }

  /**
   * Sends a command and resolves to its result; rejects with TidingsError. `onResult` is called
   * with the result synchronously, before later messages of the server are handled.
   */
  call(method, params, onResult) {
    if (this.state !== "connected") return Promise.reject(notConnected());
    return this.#send(method, params, onResult);
  }

  publish(channel, data) {
    return this.call("publish", { channel, data });
  }

  /** Clients of a channel: an object from client id to `{ user, client, … }`. */
  async presence(channel) {
    return (await this.call("presence", { channel })).presence;
  }

  /** Retained publications; `limit` −1 returns as many as the server permits. */
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
    this.#timers.clear("retry");
    this.#isAway = false;
    this.#setState("connecting");
    try {
      if (!this.#token && this.#options.getToken) this.#token = await this.#options.getToken();
    } catch (error) {
      if (this.state === "connecting" && !this.#socket) this.#wait(`no token: ${error.message}`);
      return;
    }
    if (this.state !== "connecting" || this.#socket) return;
    const socket = new this.#options.WebSocket(this.#url, "centrifuge-json");
    this.#socket = socket;
    this.#expectWord(COMMAND_TIMEOUT_MS);
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
    this.#attempts.succeeded();
    this.#pingMs = (result.ping ?? 0) * 1000;
    this.#answersPings = result.pong === true;
    this.#expectWord(this.#pingMs && this.#pingMs + PING_GRACE_MS);
    this.#watchClock(Date.now());
    this.#refreshIn(result.ttl);
    this.#setState("connected");
    for (const subscription of this.#subscriptions.values()) subscription.start();
  }

  #send(method, params, onResult) {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(new TidingsError({ code: 1, message: `no reply within ${COMMAND_TIMEOUT_MS / 1000} s`, temporary: true }));
      }, COMMAND_TIMEOUT_MS);
      this.#pending.set(id, { method, resolve, reject, timer, onResult });
      this.#socket.send(JSON.stringify({ id, [method]: params }));
    });
  }

  #receive(text) {
    this.#expectWord(this.#pingMs && this.#pingMs + PING_GRACE_MS);
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

  /** Closes the connection after `ms` without data; 0 disables the timeout. */
  #expectWord(ms) {
    if (ms) this.#timers.set("ping", ms, () => this.#closed(1006, "no data from the server"));
    else this.#timers.clear("ping");
  }

  #watchPage() {
    this.#watch?.abort();
    this.#watch = new AbortController();
    const { signal } = this.#watch;
    const on = (target, event, handle) => target?.addEventListener?.(event, handle, { signal });
    const page = globalThis.document;
    on(globalThis, "pagehide", () => this.#leave());
    on(globalThis, "pageshow", () => this.#isAway && this.#open());
    on(globalThis, "online", () => this.#lookAfter());
    on(page, "resume", () => this.#lookAfter());
    on(page, "visibilitychange", () => page.visibilityState === "visible" && this.#lookAfter());
  }

  /** A page with an open socket is not eligible for the back-forward cache. */
  #leave() {
    if (this.state === "disconnected") return;
    this.#drop();
    this.#isAway = true;
    this.#setState("waiting", { reason: "the page was left" });
  }

  /** Page or network changed: the back-off is over, and the connection may be lost unnoticed. */
  #lookAfter() {
    if (this.state === "waiting" && !this.#isAway) this.#open();
    if (this.state === "connected") this.#probe();
  }

  /** Any reply, even an error, proves that the connection is alive. */
  async #probe() {
    const socket = this.#socket;
    if (this.#isProbing) return;
    this.#isProbing = true;
    try {
      await this.call("ping", {});
    } catch (error) {
      if (error.code === 1 && this.#socket === socket) this.#closed(1006, "no reply from the server");
    } finally {
      this.#isProbing = false;
    }
  }

  /**
   * Timers stop while the machine sleeps, the clock does not. Hidden pages are excluded: browsers
   * delay their timers.
   */
  #watchClock(last) {
    this.#timers.set("clock", CLOCK.everyMs, () => {
      const now = Date.now();
      this.#watchClock(now);
      if (now - last > CLOCK.everyMs + CLOCK.lateMs && !globalThis.document?.hidden) this.#lookAfter();
    });
  }

  #refreshIn(ttl) {
    if (ttl) this.#timers.set("refresh", ttl * 1000, () => this.#refresh());
    else this.#timers.clear("refresh");
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
    const retryMs = backoff(this.#attempts.failed(), this.#options.random);
    this.#drop();
    this.#timers.set("retry", retryMs, () => this.#open());
    this.#setState("waiting", { reason, retryMs });
  }

  #forgetState() {
    this.#token = "";
    for (const subscription of this.#subscriptions.values()) subscription.forgetState();
  }

  #end(detail) {
    this.#drop();
    this.#watch?.abort();
    this.#watch = null;
    this.#setState("disconnected", detail);
  }

  /** Releases the socket and rejects all pending commands. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#timers.clearAll();
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
 * A subscription to one channel. Events: `state` with `{ state, reason?, code? }`, where state is
 * "subscribing", "subscribed" or "unsubscribed"; `publication`; `join`; `leave`; and after a
 * reconnect `recovered` with `{ recovered, count }`: the number of missed publications, which are
 * emitted next, or `recovered: false` if some are lost. Options: `getToken(channel)`, `data`, and
 * `since` with `{ offset, epoch }` to start after a known position.
 */
export class Subscription extends Emitter {
  state = "subscribing";
  #client;
  #options;
  #token = "";
  #position;
  #attempts = new Attempts();
  #timers = new Timers();
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

  /** Leaves the channel permanently. */
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
      // The connection was replaced meanwhile, and its `start` returned because of `#isAsking`.
      if (this.state === "subscribing" && connection !== this.#client.clientId) this.start();
    }
  }

  #begin(result) {
    this.#attempts.succeeded();
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
    this.#timers.set("retry", backoff(this.#attempts.failed()), () => this.start());
  }

  #refreshIn(ttl) {
    if (ttl) this.#timers.set("refresh", ttl * 1000, () => this.#refresh());
    else this.#timers.clear("refresh");
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

  /** Emits a publication unless its offset was emitted before. */
  take(publication) {
    if (publication.offset && this.#position) {
      if (publication.offset <= this.#position.offset) return;
      this.#position.offset = publication.offset;
    }
    this.emit("publication", publication);
  }

  /** The connection was lost; the position is kept. */
  interrupted() {
    this.#timers.clearAll();
    if (this.state === "subscribed") this.#setState("subscribing");
  }

  /** The server or the page has ended the subscription. */
  ended({ code, reason }) {
    this.#timers.clearAll();
    if (code === SUBSCRIPTION_INVALIDATED) this.forgetState();
    this.#setState(isFinalUnsubscribe(code) ? "unsubscribed" : "subscribing", { code, reason });
    if (this.state !== "subscribing") return;
    // The first retry is immediate; repeated ones back off.
    const failures = this.#attempts.failed();
    if (failures === 0) this.start();
    else this.#timers.set("retry", backoff(failures - 1), () => this.start());
  }

  forgetState() {
    this.#token = "";
    this.#position = null;
  }
}
