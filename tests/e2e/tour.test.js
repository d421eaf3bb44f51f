/**
 * Runs the README's tutorial and every snippet of README and docs: commands, programs, pages.
 *
 * Invariant: snippets are read from the files. A snippet that no test runs is a failure.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
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

  test("PostgreSQL accepts its snippets", async (t) => {
    const postgres = await startPostgres(sandbox);
    t.after(() => postgres.stop());
    await postgres.run("create table orders (id bigint primary key, state text)");
    for (const { language, text } of pages().flatMap(snippets)) {
      if (language !== "sql") continue;
      await postgres.run(text);
      used.add(text);
    }
  });

  test("a call by gRPC succeeds", async (t) => {
    const port = await freePort();
    const options = `--http_server.port=${await freePort()} --http_server.address=127.0.0.1`;
    const grpc = `--grpc_api.enabled --grpc_api.key=key --grpc_api.reflection --grpc_api.port=${port}`;
    const server = sandbox.start(`exec tidings serve ${options} ${grpc}`);
    t.after(() => server.stop());
    await server.waitForLine(/serving/);
    const call = pages().flatMap(snippets).find(({ language, text }) => language === "sh" && text.startsWith("buf curl"));
    assert.match(await sandbox.run(call.text.replace(":10000/", `:${port}/`), { KEY: "key" }), /"result"/);
    used.add(call.text);
  });

  test("the example receives events", async (t) => {
    const { text } = snippets("docs/events.md").find(({ language }) => language === "sh");
    const [folder, receive, serve] = text.trim().split("\n");
    const [own, port] = [await freePort(), await freePort()];
    const inside = (line) => `${folder.replace("cd ", `cd ${ROOT}`)}; exec env ${line}`;
    const receiver = sandbox.start(inside(receive.replace("PORT=3000", `PORT=${own}`)));
    t.after(() => receiver.stop());
    await receiver.waitForLine(/^listening/);
    const environment = { TIDINGS_EVENTS_BACKEND_WEBHOOK_ENDPOINT: `http://localhost:${own}/events` };
    const address = `--http_server.port=${port} --http_server.address=127.0.0.1`;
    const server = sandbox.start(inside(serve.replace("tidings.toml", `tidings.toml ${address}`)), environment);
    t.after(() => server.stop());
    await receiver.waitForLine(/node_joined/);
    used.add(text);
  });

  test("the Rust program is the one that is compiled as an example of the client", () => {
    const program = readFileSync(join(ROOT, "crates/client/examples/lobby.rs"), "utf8");
    const indented = snippet("rust", "ClientOptions").replace(/^(?=.)/gm, "    ");
    assert.ok(program.includes(indented), program);
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
    // What a program prints or sends is no snippet to run.
    const left = all.filter(({ language, text }) => !["text", "http"].includes(language) && !used.has(text));
    assert.deepEqual(left, []);
  });
});

/** Starts a PostgreSQL with logical decoding; `run` runs statements. */
async function startPostgres(sandbox) {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), "tidings-postgres-"));
  // It refuses to run as root.
  const asPostgres = process.getuid() === 0 ? "setpriv --reuid postgres --regid postgres --clear-groups " : "";
  if (asPostgres) await sandbox.run(`chown postgres ${folder}`);
  const path = `PATH="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1):$PATH"; cd ${folder}`;
  await sandbox.run(`${path}; ${asPostgres}initdb -D data -U postgres -A trust --no-sync`);
  const settings = `-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c wal_level=logical -c fsync=off`;
  const server = sandbox.start(`${path}; exec ${asPostgres}postgres -D data -p ${port} ${settings}`);
  await server.waitForLine(/ready to accept connections/);
  return {
    run(statements) {
      sandbox.write("statements.sql", statements);
      return sandbox.run(`psql -h 127.0.0.1 -p ${port} -U postgres -v ON_ERROR_STOP=1 -X -f statements.sql`);
    },
    async stop() {
      await server.stop();
      rmSync(folder, { recursive: true });
    },
  };
}

/** The words of a line, each quoted for a shell. */
const quoted = (line) => line.split(" ").map((word) => `'${word}'`).join(" ");
