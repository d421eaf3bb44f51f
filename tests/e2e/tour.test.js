/**
 * Runs the README's tutorial and every snippet of README and docs: commands, programs, pages.
 *
 * Invariant: snippets are read from the files. A snippet that no test runs is a failure.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, readFileSync, symlinkSync } from "node:fs";
import http from "node:http";
import { extname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { ROOT, Sandbox, freePort, pages, snippets } from "./snippets.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const MODULES = fileURLToPath(new URL("node_modules", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".txt": "text/plain" };

const readme = snippets("README.md");
/** Snippets that a test has run. */
const used = new Set();

/** The only snippet of the README that contains `words`. */
function snippet(language, words) {
  const found = readme.filter(({ language: its, text }) => its === language && text.includes(words));
  assert.equal(found.length, 1, `one ${language} snippet with ${words}`);
  used.add(found[0].text);
  return found[0].text;
}

let sandbox;
let browser;

before(async () => {
  assert.ok(existsSync(CHROMIUM), `${CHROMIUM} is missing; install it with "apt-get install chromium" or set CHROMIUM`);
  sandbox = new Sandbox(await freePort());
  symlinkSync(MODULES, join(sandbox.folder, "node_modules"));
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
});
after(async () => {
  await browser?.close();
  sandbox?.close();
});

/** Opens a page and collects its errors in `failures`. */
async function openPage(url) {
  const page = await browser.newPage();
  page.failures = [];
  page.on("pageerror", (error) => page.failures.push(String(error)));
  await page.goto(url);
  return page;
}

/** Serves the files of a folder over HTTP. */
async function serveFolder(folder, host, port) {
  const server = http.createServer((request, response) => {
    const path = join(folder, new URL(request.url, "http://x").pathname);
    if (!existsSync(path)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(readFileSync(path));
  });
  server.listen(port, host);
  await once(server, "listening");
  return server;
}

describe("the tutorial of the README", () => {
  test("1. and 2.: the demo, a message from a terminal, a cut and a restart", async () => {
    const start = () => sandbox.start(`exec tidings --http_server.port=${sandbox.port}`);
    let server = start();
    const [, key] = (await server.waitForLine(/X-API-Key/)).match(/X-API-Key: ([0-9a-f]+)/);
    const url = sandbox.at("http://127.0.0.1:8000/");
    const [ann, bob] = [await openPage(url), await openPage(url)];
    const said = (page, text) => page.locator("#messages li:not(.unsent)", { hasText: text }).waitFor();
    const say = async (page, text) => {
      await page.fill("#text", text);
      await page.keyboard.press("Enter");
    };
    const isLive = (page) => page.locator('#status[data-state="connected"]').waitFor();
    await Promise.all([isLive(ann), isLive(bob)]);
    await sandbox.run(sandbox.at(snippet("sh", "demo:chat")), { KEY: key });
    for (const page of [ann, bob]) await said(page, "hello");

    const button = readFileSync(join(ROOT, "README.md"), "utf8").match(/Press \*(.+?)\*/)[1];
    await ann.getByRole("button", { name: button }).click();
    await say(ann, "from the tab that is cut off");
    await say(bob, "from the other one");
    await said(bob, "from the other one");
    await ann.getByRole("button", { name: "Connect again" }).click();
    const texts = (page) => page.locator("#messages .said").allTextContents();
    for (const page of [ann, bob]) await said(page, "from the tab that is cut off");
    assert.deepEqual(await texts(ann), await texts(bob));
    await ann.locator("#messages li.recovered", { hasText: "from the other one" }).waitFor();

    await server.stop();
    await ann.locator('#status[data-state="waiting"]').waitFor();
    await say(ann, "while the server was stopped");
    server = start();
    for (const page of [ann, bob]) {
      await said(page, "while the server was stopped");
      await page.locator("#messages li.before", { hasText: "hello" }).waitFor();
      assert.equal(await page.locator("#log li", { hasText: "its history is kept in memory and was lost" }).count(), 1);
      assert.deepEqual(page.failures, []);
    }
    assert.deepEqual(await texts(ann), await texts(bob));
    await Promise.all([ann.close(), bob.close()]);
    const { code, text } = await server.stop();
    assert.equal(code, 0, text);
  });

  test("3. to 5.: a configuration, the commands, a program and a page", async (t) => {
    const environment = { TIDINGS_HTTP_SERVER_PORT: String(sandbox.port) };
    const server = sandbox.start(snippet("sh", "tidings sample-config -o tidings.toml"), environment);
    await server.waitForLine(/"serving"|serving/);
    t.after(() => server.stop());

    const subscriber = sandbox.start(snippet("sh", "tidings subscribe news"), environment);
    await subscriber.waitForLine(/^live: news$/);
    await sandbox.run(snippet("sh", "tidings publish news"), environment);
    await subscriber.waitForLine(/^\{"hello":"world"\}$/);

    sandbox.write("app.mjs", sandbox.at(snippet("js", "centrifuge")));
    const [install, run] = snippet("sh", "node app.mjs").trim().split("\n");
    for (const name of install.match(/^npm install (.+)$/)[1].split(" ")) {
      assert.ok(existsSync(join(MODULES, name)), `${name} is installed beside this test`);
    }
    const program = sandbox.start(run, environment);
    await program.waitForLine(/hello from Node\.js/);

    sandbox.write("page.html", sandbox.at(snippet("html", "tidings.js")));
    const port = await freePort();
    const served = snippet("sh", "python3 -m http.server").replaceAll("3000", String(port));
    const pageServer = sandbox.start(served, environment);
    t.after(() => pageServer.stop());
    const url = served.match(/open (http:\S+)/)[1];
    await waitForServer(url);
    const page = await openPage(url);
    await page.locator("#messages", { hasText: "hello from a browser" }).waitFor();
    assert.deepEqual(page.failures, []);
    await page.close();
    await program.waitForLine(/hello from a browser/);
    await program.stop();

    // From each local origin: the page of step 5, and the official client as a bundler includes it.
    for (const [host, name] of [["127.0.0.1", "127.0.0.1"], ["127.0.0.1", "localhost"], ["::1", "[::1]"]]) {
      const folder = await serveFolder(sandbox.folder, host, 0);
      t.after(() => folder.close());
      const origin = `http://${name}:${folder.address().port}`;
      const own = await openPage(`${origin}/page.html`);
      await own.locator("#messages", { hasText: "hello from a browser" }).waitFor();
      const token = (await sandbox.run("tidings token -c tidings.toml --user eve", environment)).trim();
      await own.addScriptTag({ url: `${origin}/node_modules/centrifuge/dist/centrifuge.js` });
      const program = sandbox.at(snippet("js", "centrifuge")).replace(/^import .*\n/gm, "");
      const received = await own.evaluate(([program, token]) => {
        const received = new Promise((resolve) => (window.received = resolve));
        const names = ["Centrifuge", "process", "console"];
        const run = new Function(...names, `return (async () => { ${program} })()`);
        run(window.Centrifuge, { env: { TOKEN: token } }, { log: window.received });
        return received;
      }, [program, token]);
      assert.deepEqual(received, { text: "hello from Node.js" }, origin);
      await own.close();
    }
  });
});

/** Waits until a server that was just started responds. */
async function waitForServer(url) {
  const end = Date.now() + 10_000;
  for (;;) {
    try {
      return await fetch(url);
    } catch (error) {
      if (Date.now() > end) throw error;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

describe("every other snippet", () => {
  test("the benchmark commands run without failures", async (t) => {
    const server = sandbox.start(`exec tidings --http_server.port=${sandbox.port}`);
    t.after(() => server.stop());
    const [, key] = (await server.waitForLine(/X-API-Key/)).match(/X-API-Key: ([0-9a-f]+)/);
    // As printed, except for fewer subscribers and a shorter run.
    const measured = snippet("sh", "tidings bench fanout").replaceAll("--subscribers 1000", "--subscribers 20 -d 300ms");
    const url = sandbox.at("ws://127.0.0.1:8000/connection/websocket");
    const text = measured.replace("bench fanout", `bench fanout --url ${url}`);
    const output = await sandbox.run(text, { KEY: key, PID: String(process.pid) });
    assert.equal(output.match(/0 lost, 0 duplicate/g).length, 2, output);
    assert.ok(existsSync(join(sandbox.folder, "fanout.html")));
  });

  test("calls of the server API succeed", async (t) => {
    const own = new Sandbox(await freePort());
    t.after(() => own.close());
    await own.run("tidings sample-config -o tidings.toml");
    const server = own.start(`exec tidings serve -c tidings.toml --http_server.port=${own.port}`);
    await server.waitForLine(/serving/);
    const KEY = readFileSync(join(own.folder, "tidings.toml"), "utf8").match(/\[http_api\]\nkey = "(.+)"/)[1];
    for (const { language, text } of pages().flatMap(snippets)) {
      if (language !== "sh" || !text.startsWith("curl ")) continue;
      const answer = (await own.run(own.at(text), { KEY })).split("\n").find((line) => line.startsWith("{"));
      assert.ok(JSON.parse(answer).result, answer);
      used.add(text);
    }
    await server.stop();
  });

  test("configurations pass `tidings check`, and JSON parses", async () => {
    for (const { file, language, text } of pages().flatMap(snippets)) {
      if (language === "json") for (const line of text.trim().split("\n\n")) JSON.parse(line);
      if (language === "toml") {
        sandbox.write("snippet.toml", text);
        await sandbox.run("tidings check -c snippet.toml --strict").catch((error) => assert.fail(`${file}: ${error.message}`));
      }
      if (["json", "toml"].includes(language)) used.add(text);
    }
  });

  test("NATS accepts its snippets", async () => {
    for (const { language, text } of pages().flatMap(snippets)) {
      if (language !== "nats") continue;
      sandbox.write("nats.conf", text);
      await sandbox.run("nats-server -t -c nats.conf");
      used.add(text);
    }
  });

  test("nginx accepts its snippets", async () => {
    for (const { language, text } of pages().flatMap(snippets)) {
      if (language !== "nginx") continue;
      const server = `server { listen 127.0.0.1:${await freePort()}; ${text} }`;
      sandbox.write("nginx.conf", `pid nginx.pid; error_log stderr; events {} http { access_log off; ${server} }`);
      await sandbox.run(`PATH="$PATH:/usr/sbin" nginx -t -p . -c nginx.conf`);
      used.add(text);
    }
  });

  test("Redis accepts its snippets", async (t) => {
    const port = await freePort();
    const redis = sandbox.start(`exec redis-server --bind 127.0.0.1 --port ${port} --save ""`);
    t.after(() => redis.stop("SIGKILL"));
    await redis.waitForLine(/Ready to accept connections/);
    for (const { language, text } of pages().flatMap(snippets)) {
      if (language === "redis") {
        for (const line of text.trim().split("\n")) {
          assert.equal(await sandbox.run(`redis-cli -p ${port} ${quoted(line)}`), "OK", line);
        }
      } else if (language === "sh" && text.includes("redis-cli")) {
        // The stream is empty: do not block.
        await sandbox.run(text.replaceAll("redis-cli", `redis-cli -p ${port}`).replace(/BLOCK \d+/, "BLOCK 1"));
      } else continue;
      used.add(text);
    }
  });

  test("the Rust program is the one that the doctest of the client compiles", () => {
    const program = snippets("crates/client/README.md").find(({ text }) => text.includes("fn main"));
    const indented = snippet("rust", "ClientOptions").replace(/^(?=.)/gm, "    ");
    assert.ok(program.text.includes(indented), program.text);
  });

  test("targets of make exist", async () => {
    for (const { language, text } of ["README.md", ...pages()].flatMap(snippets)) {
      const lines = text.trim().split("\n");
      if (language !== "sh" || !lines.some((line) => line.startsWith("make "))) continue;
      for (const line of lines.filter((line) => line.startsWith("make "))) {
        await sandbox.run(`make -C ${ROOT} --dry-run ${line.split("#")[0].slice("make ".length)}`);
      }
      // readme.js runs the two commands of the README's quick start.
      used.add(text);
    }
  });

  test("every snippet was run by a test", () => {
    const all = ["README.md", "CONTRIBUTING.md", ...pages()].flatMap(snippets);
    const left = all.filter(({ language, text }) => language !== "text" && !used.has(text));
    assert.deepEqual(left, []);
  });
});

/** The words of a line, each quoted for a shell. */
const quoted = (line) => line.split(" ").map((word) => `'${word}'`).join(" ");
