/**
 * The demo page and the official client in a real browser. With SCREENSHOTS=FOLDER, screenshots are
 * written to that folder.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { BINARY, CuttableProxy } from "./harness.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const AXE = fileURLToPath(new URL("node_modules/axe-core/axe.min.js", import.meta.url));
const DIST = fileURLToPath(new URL("node_modules/centrifuge/dist", import.meta.url));

/** A server in development mode, started without configuration. */
class DevelopmentServer {
  port = 0;

  async start() {
    this.process = spawn(BINARY, ["serve", `--http_server.port=${this.port}`], { stdio: ["ignore", "pipe", "ignore"] });
    this.exited = once(this.process, "exit");
    const lines = createInterface({ input: this.process.stdout });
    let text = "";
    for await (const line of lines) {
      text += line;
      if (line.startsWith("For real use")) break;
    }
    this.base = text.match(/http:\/\/127\.0\.0\.1:\d+/)[0];
    this.port = Number(this.base.split(":").at(-1));
    this.key = text.match(/X-API-Key: ([0-9a-f]+)/)[1];
  }

  async kill() {
    this.process.kill("SIGKILL");
    await this.exited;
  }

  async publish(channel, data) {
    const headers = { "X-API-Key": this.key };
    const body = JSON.stringify({ channel, data });
    const response = await fetch(`${this.base}/api/publish`, { method: "POST", headers, body });
    assert.ok((await response.json()).result);
  }
}

const server = new DevelopmentServer();
let browser;

before(async () => {
  assert.ok(existsSync(CHROMIUM), `${CHROMIUM} is missing; install it with "apt-get install chromium" or set CHROMIUM`);
  await server.start();
  // A host name that resolves to this machine, as with a tunnel.
  const args = ["--no-sandbox", "--host-resolver-rules=MAP tunnel.example 127.0.0.1"];
  browser = await chromium.launch({ executablePath: CHROMIUM, args });
});
after(async () => {
  await browser?.close();
  await server.kill();
});

async function openPage(options = {}, url = server.base) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  const page = await context.newPage();
  page.failures = [];
  page.on("pageerror", (error) => page.failures.push(String(error)));
  page.on("console", (message) => {
    // Chromium logs every refused connection while the server is down.
    if (message.type() === "error" && !message.text().includes("WebSocket connection")) page.failures.push(message.text());
  });
  await page.goto(url);
  return page;
}

const isLive = (page) => page.locator('#status[data-state="connected"]').waitFor();
const said = (page, text) => page.locator("#messages li:not(.unsent)", { hasText: text }).waitFor();

async function say(page, text) {
  await page.fill("#text", text);
  await page.keyboard.press("Enter");
}

async function shoot(page, name) {
  const folder = process.env.SCREENSHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`) });
}

describe("the demo", () => {
  test("two pages chat, show each other as online, and reconnect after a restart of the server", async () => {
    const [ann, bob] = [await openPage(), await openPage({ colorScheme: "dark" })];
    await ann.fill("#name", "Ann");
    await bob.fill("#name", "Bob");
    for (const page of [ann, bob]) {
      await isLive(page);
      await page.locator("#name").blur();
    }
    await ann.locator("#people li", { hasText: "Bob" }).waitFor();
    await bob.locator("#people li", { hasText: "Ann" }).waitFor();
    assert.equal(await ann.locator("#count").textContent(), "2");

    await say(ann, "Hello from Ann");
    await said(bob, "Hello from Ann");
    await say(bob, "Hello back");
    await said(ann, "Hello back");
    await ann.locator("#quotes tr").first().waitFor();
    for (const page of [ann, bob]) await page.locator("#quotes tr:nth-child(3)").waitFor();
    await shoot(ann, "desk-light");
    await shoot(bob, "desk-dark");

    await server.kill();
    for (const page of [ann, bob]) await page.locator('#status[data-state="waiting"]').waitFor();
    assert.match(await ann.locator("#status-text").textContent(), /^reconnecting in \d+ s$/);
    await say(ann, "Said while the server was down");
    await ann.locator("#messages .unsent").waitFor();
    await shoot(ann, "desk-reconnecting");

    await server.start();
    for (const page of [ann, bob]) {
      await isLive(page);
      await said(page, "Said while the server was down");
      await said(page, "Hello back");
    }
    assert.deepEqual(await texts(ann), await texts(bob));
    assert.equal(await ann.locator("#messages li").count(), 3);
    await ann.locator("#people li", { hasText: "Bob" }).waitFor();
    for (const page of [ann, bob]) {
      assert.deepEqual(page.failures, []);
      await page.context().close();
    }
  });

  test("a cut connection recovers missed messages", async () => {
    // A separate server: with a port chosen by the system, pages of other ports are admitted.
    const own = new DevelopmentServer();
    await own.start();
    const proxy = await new CuttableProxy().open(own.port);
    const page = await openPage({}, `http://127.0.0.1:${proxy.port}/`);
    await isLive(page);
    await own.publish("demo:chat", { text: "before", name: "API", key: "before" });
    await said(page, "before");
    proxy.cut();
    await page.locator('#status[data-state="waiting"]').waitFor();
    for (const text of ["first", "second"]) await own.publish("demo:chat", { text, name: "API", key: text });
    proxy.restore();
    await said(page, "second");
    await page.locator("#log li", { hasText: "demo:chat: recovered 2 messages" }).waitFor();
    assert.equal(await page.locator("#messages li").count(), 3);
    assert.deepEqual(page.failures, []);
    await page.context().close();
    proxy.close();
    await own.kill();
  });

  test("every tab shows the lines in the channel's order, including those written offline", async () => {
    const [ann, bob] = [await openPage(), await openPage()];
    for (const page of [ann, bob]) {
      await isLive(page);
      await say(page, "here");
    }
    // A tab that shows both messages has read the history.
    for (const page of [ann, bob]) await page.locator("#messages li:not(.unsent)", { hasText: "here" }).nth(1).waitFor();
    const before = await ann.locator("#messages li").count();
    assert.deepEqual(await texts(ann), await texts(bob));
    await server.kill();
    for (const page of [ann, bob]) await page.locator('#status[data-state="waiting"]').waitFor();
    for (const text of ["one", "two"]) {
      await say(ann, `Ann ${text}`);
      await say(bob, `Bob ${text}`);
    }
    await server.start();
    for (const page of [ann, bob]) {
      for (const text of ["Ann two", "Bob two"]) await said(page, text);
      await page.locator("#messages .unsent").first().waitFor({ state: "detached" });
      assert.equal(await page.locator("#messages li").count(), before + 4);
    }
    assert.deepEqual(await texts(ann), await texts(bob));
    // A third tab reads the history.
    const eve = await openPage();
    await said(eve, "Bob two");
    assert.deepEqual(await texts(eve), (await texts(ann)).slice(-4));
    for (const page of [ann, bob, eve]) await page.context().close();
  });

  test("the disconnect button marks outdated data, and reconnecting recovers messages", async () => {
    const own = new DevelopmentServer();
    await own.start();
    const page = await openPage({}, own.base);
    await isLive(page);
    await page.locator("#quotes tr:nth-child(4)").waitFor();
    assert.equal(await page.locator(".stale:visible").count(), 0);
    await page.getByRole("button", { name: "Cut my connection" }).click();
    await page.locator('#status[data-state="disconnected"]').waitFor();
    assert.match((await page.locator(".stale:visible").allTextContents()).join(), /^as of \d\d:\d\d:\d\d,as of \d\d:\d\d:\d\d$/);
    for (const text of ["first", "second"]) await own.publish("demo:chat", { text, name: "API", key: text });
    await shoot(page, "desk-cut");
    await page.getByRole("button", { name: "Connect again" }).click();
    await page.locator("#messages li.recovered", { hasText: "second" }).waitFor();
    await page.locator("#log li", { hasText: "demo:chat: recovered 2 messages" }).waitFor();
    assert.equal(await page.locator(".stale:visible").count(), 0);
    assert.deepEqual(page.failures, []);
    await page.context().close();
    await own.kill();
  });

  test("is accessible, and has no layout shifts", async () => {
    const own = new DevelopmentServer();
    await own.start();
    const sizes = [{ width: 1440, height: 900 }, { width: 1024, height: 768 }, { width: 360, height: 740 }];
    const pages = [];
    for (const [index, viewport] of sizes.entries()) {
      const page = await openPage({ viewport, bypassCSP: true, colorScheme: ["light", "dark"][index % 2] }, "about:blank");
      await page.addInitScript(() => {
        window.shift = 0;
        const watch = (entries) => entries.forEach((entry) => (window.shift += entry.hadRecentInput ? 0 : entry.value));
        new PerformanceObserver((list) => watch(list.getEntries())).observe({ type: "layout-shift", buffered: true });
      });
      await page.goto(own.base);
      await isLive(page);
      await page.locator("#quotes tr:nth-child(4)").waitFor();
      pages.push(page);
    }
    await say(pages[0], "A line in every tab");
    for (const page of pages) await said(page, "A line in every tab");
    const check = async (when) => {
      for (const page of pages) {
        await page.addScriptTag({ path: AXE });
        const { violations } = await page.evaluate(() => axe.run(document));
        const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
        assert.deepEqual(found, [], when);
        const shift = await page.evaluate(() => window.shift);
        assert.ok(shift < 0.005, `${when}: layout shift ${shift}`);
      }
    };
    await check("live");
    await own.kill();
    for (const page of pages) await page.locator('#status[data-state="waiting"]').waitFor();
    await say(pages[0], "Written offline");
    await pages[0].locator("#messages .unsent").waitFor();
    await check("while the server is away");
    await own.start();
    for (const page of pages) await said(page, "Written offline");
    await check("back again");
    for (const page of pages) await page.context().close();
    await own.kill();
  });

  test("shows why the server refuses the connection", async () => {
    const { port } = server;
    const page = await openPage({}, `http://tunnel.example:${port}/`);
    const lead = page.locator("#lead.error", { hasText: "client.allowed_origins" });
    await lead.waitFor();
    assert.match(await lead.textContent(), /^Refused: pages of http:\/\/tunnel\.example:\d+ may not connect \(403\)/);
    await shoot(page, "desk-refused");
    await page.context().close();
  });

  test("connects through a forwarded port, as with a tunnel or a container", async () => {
    const own = new DevelopmentServer();
    await own.start();
    const proxy = await new CuttableProxy().open(own.port);
    for (const host of ["127.0.0.1", "localhost"]) {
      const page = await openPage({}, `http://${host}:${proxy.port}/`);
      await isLive(page);
      await page.context().close();
    }
    proxy.close();
    await own.kill();
  });

  test("is restored from the back-forward cache and reconnects", async () => {
    // Playwright disables the back-forward cache by default.
    const keeping = await chromium.launch({
      executablePath: CHROMIUM,
      args: ["--no-sandbox"],
      ignoreDefaultArgs: ["--disable-back-forward-cache"],
    });
    const page = await keeping.newPage();
    await page.goto(server.base);
    await isLive(page);
    await page.evaluate(() => addEventListener("pageshow", ({ persisted }) => (window.wasKept = persisted)));
    await page.goto(`${server.base}/tidings.js`);
    await server.publish("demo:chat", { text: "said while in the cache", name: "API" });
    // A page restored from the cache fires no "load" event.
    await page.goBack({ waitUntil: "commit" });
    await isLive(page);
    await said(page, "said while in the cache");
    assert.equal(await page.evaluate(() => window.wasKept), true);
    await page.locator("#log li", { hasText: "demo:chat: recovered 1 message" }).waitFor();
    await keeping.close();
  });

  test("fits a phone, and is usable with the keyboard", async () => {
    const page = await openPage({ viewport: { width: 360, height: 740 }, colorScheme: "dark" });
    await isLive(page);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 360, `the page is ${width} px wide`);
    await page.locator("#name").focus();
    await page.keyboard.press("Tab");
    await page.keyboard.type("typed");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Space");
    await said(page, "typed");
    await shoot(page, "phone-dark");
    assert.deepEqual(page.failures, []);
    await page.context().close();
  });
});

const texts = (page) => page.locator("#messages li").allTextContents();

describe("the official client in a browser", () => {
  for (const file of ["centrifuge.js", "centrifuge.protobuf.js"]) {
    test(file, async () => {
      const page = await openPage({ bypassCSP: true });
      await page.addScriptTag({ path: join(DIST, file) });
      const channel = `demo:${file}-${Date.now()}`;
      const ready = await page.evaluate(async (channel) => {
        const client = new Centrifuge(`ws://${location.host}/connection/websocket`);
        const subscription = client.newSubscription(channel);
        window.seen = new Promise((resolve) => subscription.on("publication", resolve));
        subscription.subscribe();
        client.connect();
        await subscription.ready(5000);
        return client.state;
      }, channel);
      assert.equal(ready, "connected");
      await server.publish(channel, { hello: "world" });
      const data = await page.evaluate(async () => {
        const { data } = await window.seen;
        return data instanceof Uint8Array ? JSON.parse(new TextDecoder().decode(data)) : data;
      });
      assert.deepEqual(data, { hello: "world" });
      await page.context().close();
    });
  }
});
