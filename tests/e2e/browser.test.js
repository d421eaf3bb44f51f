/**
 * The demo page and the official client in a real browser. Screenshots go to the folder that SCREENSHOTS names.
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

import { BINARY, Wire } from "./harness.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const DIST = fileURLToPath(new URL("node_modules/centrifuge/dist", import.meta.url));

/** A server in development mode, as a newcomer starts it. */
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
  browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
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
    // Chromium itself reports every refused connection while the server is down.
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
  test("two pages chat, see each other, and survive a restart of the server", async () => {
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

  test("a cut connection recovers what was said meanwhile", async () => {
    // A server of its own: while the system chooses the port, the page may come through another one.
    const own = new DevelopmentServer();
    await own.start();
    const wire = await new Wire().open(own.port);
    const page = await openPage({}, `http://127.0.0.1:${wire.port}/`);
    await isLive(page);
    await own.publish("demo:chat", { text: "before", name: "API", key: "before" });
    await said(page, "before");
    wire.cut();
    await page.locator('#status[data-state="waiting"]').waitFor();
    for (const text of ["first", "second"]) await own.publish("demo:chat", { text, name: "API", key: text });
    wire.mend();
    await said(page, "second");
    await page.locator("#log li", { hasText: "demo:chat: recovered 2 messages" }).waitFor();
    assert.equal(await page.locator("#messages li").count(), 3);
    assert.deepEqual(page.failures, []);
    await page.context().close();
    wire.close();
    await own.kill();
  });

  test("fits a phone, and works with the keyboard alone", async () => {
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
