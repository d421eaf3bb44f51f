/**
 * What connects a server to others: nothing but its own memory, a Redis, or a NATS with JetStream.
 * The real servers are started here on a free port, with a folder of their own.
 *
 * Invariant: `stop` ends the process that `start` has started.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

class Memory {
  settings = {};

  async start() {}
  async stop() {}
}

class Process {
  constructor(command, ready) {
    Object.assign(this, { command, ready });
  }

  async start() {
    this.folder = mkdtempSync(join(tmpdir(), "tidings-"));
    const port = String(await freePort());
    this.process = spawn(this.command, this.parameters(port), { stdio: ["ignore", "pipe", "pipe"] });
    this.ended = new Promise((resolve) => this.process.on("close", resolve));
    const lines = [];
    await new Promise((resolve, reject) => {
      this.process.on("error", () => reject(new Error(`${this.command} is missing; run "apt-get install ${this.command}"`)));
      this.ended.then((code) => reject(new Error(`${this.command} ended with ${code}:\n${lines.join("\n")}`)));
      for (const input of [this.process.stdout, this.process.stderr]) {
        createInterface({ input }).on("line", (line) => {
          lines.push(line);
          if (line.includes(this.ready)) resolve();
        });
      }
    });
    this.settings = this.settingsOn(port);
  }

  async stop() {
    this.process.kill("SIGKILL");
    await this.ended;
    rmSync(this.folder, { recursive: true });
  }
}

class Redis extends Process {
  constructor() {
    super("redis-server", "Ready to accept connections");
  }

  parameters(port) {
    return ["--bind", "127.0.0.1", "--port", port, "--dir", this.folder, "--save", "", "--appendonly", "no"];
  }

  settingsOn(port) {
    return { engine: { type: "redis", redis: { address: [`redis://127.0.0.1:${port}`] } } };
  }
}

class Nats extends Process {
  constructor() {
    super("nats-server", "Server is ready");
  }

  parameters(port) {
    return ["-a", "127.0.0.1", "-p", port, "-js", "-sd", this.folder];
  }

  settingsOn(port) {
    return { broker: { enabled: true, type: "nats", nats: { url: `nats://127.0.0.1:${port}` } } };
  }
}

async function freePort() {
  const listener = net.createServer().listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  listener.close();
  await once(listener, "close");
  return port;
}

export const ENGINES = { memory: Memory, Redis, NATS: Nats };
