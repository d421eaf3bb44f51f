/**
 * A browser that is still sending must receive the close code: codes of the WebSocket layer, plain
 * and with TLS, directly and, with PROXIES=1, behind nginx and HAProxy. CLOSE_TRIES is the number
 * of tries per case.
 *
 * A browser sends no malformed frames. A relay inserts them between browser and server and forwards
 * all other data unchanged, including half-closes.
 */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import tls from "node:tls";

import { chromium } from "playwright-core";

import { TestServer } from "./harness.js";

const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const TRIES = Number(process.env.CLOSE_TRIES ?? 3);
const PROXIES = process.env.PROXIES === "1" ? ["nginx", "haproxy"] : [];

/** Bytes that the relay inserts before the first frame of the browser, by expected close code. */
const BREACHES = {
  1002: Buffer.from([0x81, 2, 0x7b, 0x7d]), // not masked
  1007: Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]), // text that is not UTF-8
  1009: Buffer.alloc(0), // the page itself sends a message above the limit
};

const folder = mkdtempSync(join(tmpdir(), "tidings-close-"));
const pem = { cert: join(folder, "cert.pem"), key: join(folder, "key.pem") };
const both = join(folder, "both.pem");
const open = [];
let page;
let browser;

before(async () => {
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  execFileSync("openssl", ["req", ...kind, ...subject, "-keyout", pem.key, "-out", pem.cert], { stdio: "ignore" });
  writeFileSync(both, readFileSync(pem.cert, "utf8") + readFileSync(pem.key, "utf8"));
  const site = http.createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<title>x</title>"));
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  open.push(() => site.close());
  const args = ["--no-sandbox", "--ignore-certificate-errors"];
  browser = await chromium.launch({ executablePath: CHROMIUM, args });
  page = await browser.newPage();
  await page.goto(`http://127.0.0.1:${site.address().port}/`);
});

after(async () => {
  await browser?.close();
  for (const close of open.reverse()) await close();
  rmSync(folder, { recursive: true });
});

async function startServer(isTls) {
  const config = {
    http_server: isTls ? { tls: { enabled: true, cert_pem: pem.cert, key_pem: pem.key } } : {},
    client: { allowed_origins: ["http://127.0.0.1:*"], allow_anonymous_connect_without_token: true },
  };
  const server = await new TestServer(config).start();
  open.push(() => server.stop());
  return server.port;
}

/** Starts a relay to a port that inserts `breach` before the first frame; returns its port. */
async function startRelay(port, isTls, breach) {
  const relay = (near) => {
    const far = isTls
      ? tls.connect({ port, host: "127.0.0.1", rejectUnauthorized: false })
      : net.connect(port, "127.0.0.1");
    let chunks = 0;
    near.on("data", (chunk) => {
      // The first chunk is the handshake.
      if (++chunks === 2) far.write(breach);
      if (!far.write(chunk)) near.pause();
    });
    far.on("drain", () => near.resume());
    near.on("end", () => far.end());
    far.pipe(near);
    near.on("error", () => far.destroy());
    far.on("error", () => near.destroy());
    far.on("close", () => near.destroySoon());
  };
  const options = { allowHalfOpen: true };
  const secrets = { cert: readFileSync(pem.cert), key: readFileSync(pem.key) };
  const server = isTls ? tls.createServer({ ...options, ...secrets }, relay) : net.createServer(options, relay);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  open.push(() => server.close());
  return server.address().port;
}

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** Starts a proxy in front of a port, with TLS on both sides or on none. */
async function startProxy(name, backend, isTls) {
  const port = await freePort();
  const file = join(folder, `${name}-${port}.conf`);
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((kind) => `${kind}_temp_path ${folder}/${kind};`);
  const configs = {
    nginx: `
      daemon off; pid ${folder}/nginx-${port}.pid; error_log ${folder}/nginx.log; worker_processes 1;
      events {}
      http {
        access_log off; ${temporary.join(" ")}
        server {
          listen 127.0.0.1:${port} ${isTls ? `ssl; ssl_certificate ${pem.cert}; ssl_certificate_key ${pem.key}` : ""};
          location / {
            proxy_pass ${isTls ? "https" : "http"}://127.0.0.1:${backend};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
          }
        }
      }`,
    haproxy: `
      defaults
        mode http
        timeout connect 5s
        timeout client 30s
        timeout server 30s
        timeout tunnel 1h
      frontend in
        bind 127.0.0.1:${port} ${isTls ? `ssl crt ${both}` : ""}
        default_backend out
      backend out
        server one 127.0.0.1:${backend} ${isTls ? "ssl verify none" : ""}
`,
  };
  writeFileSync(file, configs[name]);
  const run = { nginx: ["-c", file], haproxy: ["-f", file] }[name];
  const child = spawn(`/usr/sbin/${name}`, run, { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (data) => (said += data));
  const exited = once(child, "exit");
  open.push(async () => {
    child.kill("SIGTERM");
    await exited;
  });
  for (let left = 100; left > 0; left--) {
    const isUp = await new Promise((resolve) => {
      const socket = net.connect(port, "127.0.0.1", () => resolve(true)).on("error", () => resolve(false));
      socket.on("connect", () => socket.destroy());
    });
    if (isUp) return port;
    assert.equal(child.exitCode, null, `${name}: ${said}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${name} does not listen: ${said}`);
}

/** Counts the close codes that a continuously sending page receives. */
function closeCodes(url, sizes, tries) {
  return page.evaluate(
    async ({ url, sizes, tries }) => {
      const codes = {};
      for (let index = 0; index < tries; index++) {
        const code = await new Promise((resolve) => {
          const socket = new WebSocket(url);
          socket.onopen = () => {
            socket.send('{"id":1,"connect":{}}');
            socket.send("x".repeat(sizes[index % sizes.length]));
            for (let more = 0; more < 50; more++) socket.send(`{"id":${more + 2},"ping":{}}`);
          };
          socket.onclose = (event) => resolve(event.code);
        });
        codes[code] = (codes[code] ?? 0) + 1;
      }
      return codes;
    },
    { url, sizes, tries },
  );
}

for (const isTls of [false, true]) {
  const scheme = isTls ? "wss" : "ws";
  describe(`close codes over ${scheme}`, () => {
    let port;
    before(async () => {
      port = await startServer(isTls);
    });
    for (const way of ["direct", ...PROXIES]) {
      for (const code of [1009, 1002, 1007]) {
        test(`${way}: ${code}`, async () => {
          const relay = code === 1009 ? port : await startRelay(port, isTls, BREACHES[code]);
          const entry = way === "direct" ? relay : await startProxy(way, relay, isTls);
          const sizes = code === 1009 ? [65_537, 100_000, 1_000_000, 8_000_000] : [60_000];
          const codes = await closeCodes(`${scheme}://127.0.0.1:${entry}/connection/websocket`, sizes, TRIES);
          assert.deepEqual(codes, { [code]: TRIES });
        });
      }
    }
  });
}
