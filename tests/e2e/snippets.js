/**
 * Reads the fenced code snippets of README and docs, and runs shell snippets.
 *
 * Invariant: a snippet is used as printed, except that the port is replaced by a free one.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { BINARY } from "./harness.js";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const PRINTED_PORT = "8000";
const PATIENCE_MS = 20_000;

/** All snippets of a file: `{ file, language, text }`. */
export function snippets(file) {
  const text = readFileSync(join(ROOT, file), "utf8");
  return [...text.matchAll(/^```([\w,]*)\n([^]*?)^```$/gm)].map(([, language, text]) => ({ file, language, text }));
}

/** Paths of all pages in docs/. */
export const pages = () => readdirSync(join(ROOT, "docs")).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`);

export async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A folder for the README's steps: the repository's `web`, the command in PATH, a free port. */
export class Sandbox {
  #children = [];

  constructor(port) {
    this.port = port;
    this.folder = mkdtempSync(join(tmpdir(), "tidings-snippets-"));
    symlinkSync(join(ROOT, "web"), join(this.folder, "web"));
    mkdirSync(join(this.folder, "bin"));
    symlinkSync(BINARY, join(this.folder, "bin", "tidings"));
    const others = Object.entries(process.env).filter(([name]) => !/^(TIDINGS|CENTRIFUGO)_/.test(name));
    const path = `${join(this.folder, "bin")}:${process.env.PATH}`;
    this.environment = { ...Object.fromEntries(others), PATH: path };
  }

  /** Replaces the printed port by `port`. */
  at(text, port = this.port) {
    return text.replaceAll(`:${PRINTED_PORT}`, `:${port}`);
  }

  write(name, text) {
    writeFileSync(join(this.folder, name), text);
  }

  /** Starts a shell snippet. */
  start(text, environment = {}) {
    const child = spawn("bash", ["-ec", text], {
      cwd: this.folder,
      env: { ...this.environment, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
      // A process group, so that the child processes of the shell are ended with it.
      detached: true,
    });
    this.#children.push(child);
    const lines = [];
    const waiting = new Set();
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        lines.push(line);
        for (const look of waiting) look();
      });
    }
    const ended = once(child, "close").then(([code]) => ({ code, text: lines.join("\n") }));
    const waitForLine = (pattern) =>
      new Promise((resolve, reject) => {
        const fail = (why) => reject(new Error(`${why}, no ${pattern}:\n${text}\n${lines.join("\n")}`));
        const timer = setTimeout(() => fail("timeout"), PATIENCE_MS);
        const look = () => {
          const line = lines.find((line) => pattern.test(line));
          if (line === undefined) return;
          clearTimeout(timer);
          waiting.delete(look);
          resolve(line);
        };
        waiting.add(look);
        ended.then(() => (look(), waiting.has(look) && (clearTimeout(timer), fail("the process has ended"))));
        look();
      });
    const stop = async (signal = "SIGINT") => {
      if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid, signal);
      return ended;
    };
    return { waitForLine, stop, ended, lines };
  }

  /** Runs a shell snippet until it exits, and asserts exit status 0. Returns its output. */
  async run(text, environment) {
    const { code, text: output } = await this.start(text, environment).ended;
    assert.equal(code, 0, `${text}\n${output}`);
    return output;
  }

  close() {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      process.kill(-child.pid, "SIGKILL");
    }
    rmSync(this.folder, { recursive: true });
  }
}
