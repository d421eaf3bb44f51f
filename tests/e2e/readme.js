/**
 * Runs the two commands of the "Quick start" section of the README.
 *
 * Invariant: the commands are read from the README, so the documented commands are the tested ones.
 */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** The first command builds the server. */
const BUILD_TIMEOUT_MS = 20 * 60_000;

const readme = readFileSync(`${ROOT}README.md`, "utf8");
const section = readme.split("\n## Quick start\n")[1].split("\n## ")[0];
const [serve, prove] = section.match(/```sh\n([^]*?)```/)[1].trim().split("\n").map((line) => line.split("#")[0].trim());

/** The environment without Tidings settings of the caller; port 0 selects a free port. */
function environment() {
  const others = Object.entries(process.env).filter(([name]) => !/^(TIDINGS|CENTRIFUGO)_/.test(name));
  return { ...Object.fromEntries(others), TIDINGS_HTTP_SERVER_PORT: "0" };
}

test("the first command serves the demo page", { timeout: BUILD_TIMEOUT_MS }, async (t) => {
  const child = spawn("sh", ["-c", `exec ${serve}`], {
    cwd: ROOT,
    env: environment(),
    stdio: ["ignore", "pipe", "pipe"],
    // Cargo may start the server as its child process: the signal goes to the process group.
    detached: true,
  });
  const ended = once(child, "exit");
  const end = () => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-child.pid, "SIGINT");
  };
  t.after(end);
  const lines = [];
  const address = await new Promise((resolve, reject) => {
    createInterface({ input: child.stderr }).on("line", (line) => lines.push(line));
    createInterface({ input: child.stdout }).on("line", (line) => {
      lines.push(line);
      const page = line.match(/open http:\/\/(\S+)\//);
      if (page) resolve(page[1]);
    });
    child.on("exit", (code) => reject(new Error(`${serve} ended with ${code}:\n${lines.join("\n")}`)));
  });
  const page = await fetch(`http://${address}/`);
  assert.equal(page.status, 200);
  assert.match(await page.text(), /<title>.*Tidings/i);
  end();
  const [code] = await ended;
  assert.equal(code, 0, `it does not exit cleanly after Ctrl-C:\n${lines.join("\n")}`);
});

test("the second command is what CI runs, and its parts exist", () => {
  const ci = readFileSync(`${ROOT}.ci/run`, "utf8").trim().split("\n").at(-1);
  assert.equal(ci, prove);
  const parts = spawnSync("sh", ["-c", `${prove} --dry-run`], { cwd: ROOT, encoding: "utf8" });
  assert.equal(parts.status, 0, parts.stderr);
  assert.match(parts.stdout, /cargo test/);
});
