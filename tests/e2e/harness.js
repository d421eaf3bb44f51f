/**
 * Starts the real server on a free port, signs tokens, and waits for events of clients.
 *
 * Invariant: a test waits for events, never for time to pass, and ends every process that it has
 * started.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const WAIT_MS = 10_000;
export const SECRET = "a secret for tests";
export const API_KEY = "an API key for tests";
export const BINARY = process.env.TIDINGS ?? fileURLToPath(new URL("../../target/debug/tidings", import.meta.url));

const history = { history_size: 50, history_ttl: "60s" };
const everything = {
  allow_subscribe_for_client: true,
  allow_publish_for_client: true,
  allow_presence_for_client: true,
  allow_history_for_client: true,
};

const CONFIG = {
  http_server: { address: "127.0.0.1", port: 0 },
  http_api: { key: API_KEY },
  client: { token: { hmac_secret_key: SECRET }, channel_limit: 8 },
  channel: {
    namespaces: [
      { name: "open", ...everything },
      { name: "kept", ...everything, ...history, force_recovery: true, presence: true },
      { name: "people", ...everything, presence: true, join_leave: true, force_push_join_leave: true },
      { name: "cache", ...everything, ...history, history_size: 1, force_recovery: true, force_recovery_mode: "cache" },
      { name: "closed" },
      { name: "binary", ...everything, publication_data_format: "binary" },
    ],
  },
};

/** A server process. `start` after `kill` reuses the port; `stop` also disconnects its clients. */
export class TestServer {
  clients = [];

  constructor(config = {}, engine = { settings: {} }) {
    assert.ok(existsSync(BINARY), `${BINARY} is missing; run "cargo build" first`);
    this.folder = mkdtempSync(join(tmpdir(), "tidings-"));
    this.config = merge(structuredClone(CONFIG), config);
    this.engine = engine;
    this.port = 0;
  }

  async start() {
    this.config.http_server.port = this.port;
    const file = join(this.folder, "config.json");
    writeFileSync(file, JSON.stringify(merge(structuredClone(this.config), this.engine.settings)));
    this.process = spawn(BINARY, ["serve", "-c", file], { stdio: ["ignore", "inherit", "pipe"] });
    this.exited = once(this.process, "exit");
    const lines = [];
    const serving = new Promise((resolve, reject) => {
      createInterface({ input: this.process.stderr }).on("line", (line) => {
        lines.push(line);
        if (!line.startsWith("{")) return;
        const event = JSON.parse(line);
        if (event.message === "serving") resolve(event.address);
      });
      this.process.on("exit", (code) => reject(new Error(`the server ended with ${code}:\n${lines.join("\n")}`)));
    });
    const address = await serving;
    this.port = Number(address.split(":").at(-1));
    this.log = lines;
    return this;
  }

  get url() {
    return `ws://127.0.0.1:${this.port}/connection/websocket`;
  }

  /** Calls the server API; returns the result or throws the error. */
  async api(method, params = {}) {
    const response = await fetch(`http://127.0.0.1:${this.port}/api/${method}`, {
      method: "POST",
      headers: { "X-API-Key": API_KEY },
      body: JSON.stringify(params),
    });
    const { result, error } = await response.json();
    if (error) throw Object.assign(new Error(error.message), error);
    return result;
  }

  /** Kills the process without a shutdown. */
  async kill() {
    this.process.kill("SIGKILL");
    await this.exited;
  }

  async stop() {
    for (const client of this.clients) client.disconnect();
    this.process.kill("SIGKILL");
    await this.exited;
    rmSync(this.folder, { recursive: true });
  }
}

function merge(base, changes) {
  for (const [key, value] of Object.entries(changes)) {
    const isObject = value && typeof value === "object" && !Array.isArray(value);
    base[key] = isObject ? merge(base[key] ?? {}, value) : value;
  }
  return base;
}

/** A TCP proxy to the server whose connections can be cut and restored. */
export class CuttableProxy {
  #sockets = new Set();
  #isCut = false;

  async open(port) {
    this.server = net.createServer((near) => {
      if (this.#isCut) return near.destroy();
      const far = net.connect(port, "127.0.0.1");
      for (const [from, to] of [[near, far], [far, near]]) {
        this.#sockets.add(from);
        from.pipe(to);
        from.on("error", () => to.destroy());
        from.on("close", () => to.destroy());
      }
    });
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
    this.port = this.server.address().port;
    this.url = `ws://127.0.0.1:${this.port}/connection/websocket`;
    return this;
  }

  cut() {
    this.#isCut = true;
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  restore() {
    this.#isCut = false;
  }

  close() {
    this.cut();
    this.server.close();
  }
}

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** Signs a token with these claims (RFC 7519, HS256). */
export function token(claims, secret = SECRET) {
  const body = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(claims)}`;
  return `${body}.${createHmac("sha256", secret).update(body).digest("base64url")}`;
}

export const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

/** Resolves to the next event of this name that `accepts` returns true for. */
export function next(emitter, event, accepts = () => true) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      emitter.removeListener(event, handle);
      reject(new Error(`no event "${event}" in ${WAIT_MS} ms`));
    }, WAIT_MS);
    const handle = (detail) => {
      if (!accepts(detail)) return;
      clearTimeout(timer);
      emitter.removeListener(event, handle);
      resolve(detail);
    };
    emitter.on(event, handle);
  });
}

/** Collects all later events of this name; `take(n)` waits until there are n. */
export function collect(emitter, event) {
  const seen = [];
  const waiting = [];
  emitter.on(event, (detail) => {
    seen.push(detail);
    for (const check of waiting) check();
  });
  const take = (count) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${seen.length} of ${count} "${event}" events`)), WAIT_MS);
      const check = () => {
        if (seen.length < count) return;
        clearTimeout(timer);
        resolve(seen);
      };
      waiting.push(check);
      check();
    });
  return { seen, take };
}
