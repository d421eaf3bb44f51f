/**
 * The demo page: a chat, who is online, and a ticker, on nothing but the public protocol.
 *
 * Invariant: what was said inside the history window is shown once and in order, whatever happened to the connection.
 */
import { Tidings } from "./tidings.js";

const QUOTES_KEPT = 40;
const LINES_KEPT = 200;
const ANNOUNCE_MS = 240_000;

const byId = (id) => document.getElementById(id);
const scheme = location.protocol === "https:" ? "wss" : "ws";
const client = new Tidings(`${scheme}://${location.host}/connection/websocket`, { name: "demo" });
const chat = client.subscribe("demo:chat");
const names = client.subscribe("demo:names");
const ticker = client.subscribe("demo:ticker");

/** An element with text and children, never with HTML. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function note(text) {
  const time = new Date().toLocaleTimeString();
  byId("log").prepend(element("li", {}, `${time} ${text}`));
  while (byId("log").children.length > 20) byId("log").lastChild.remove();
}

// ---- connection ----

let countdown = 0;

client.on("state", ({ state, reason, retryMs }) => {
  clearInterval(countdown);
  byId("status").dataset.state = state;
  byId("retry").hidden = state !== "waiting";
  if (state !== "waiting") {
    const texts = { connected: "live", connecting: "connecting", disconnected: `offline: ${reason ?? ""}` };
    byId("status-text").textContent = texts[state];
  } else {
    const until = Date.now() + retryMs;
    const show = () => {
      const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1000));
      byId("status-text").textContent = `reconnecting in ${seconds} s`;
    };
    show();
    countdown = setInterval(show, 250);
    note(`disconnected: ${reason}`);
  }
  if (state === "connected") {
    note("connected");
    sendWaiting();
  }
});
byId("retry").addEventListener("click", () => client.connect());

/** After a cut: say what came back; where the server could not close the gap, read what it still has. */
function watchRecovery(subscription, take) {
  subscription.on("recovered", ({ recovered, count }) => {
    if (recovered) {
      if (count) note(`${subscription.channel}: recovered ${count} ${count === 1 ? "message" : "messages"}`);
    } else {
      note(`${subscription.channel}: the server has forgotten what was before`);
      readHistory(subscription, take);
    }
  });
  // Without an offset nothing is recovered at the first subscription.
  let isFirst = true;
  subscription.on("state", ({ state }) => {
    if (state === "subscribed" && isFirst) readHistory(subscription, take);
    if (state === "subscribed") isFirst = false;
  });
}

async function readHistory(subscription, take) {
  try {
    for (const publication of (await subscription.history()).publications) take(publication);
  } catch (error) {
    note(`${subscription.channel}: no history (${error.message})`);
  }
}

// ---- chat ----

const shown = new Map();
const waiting = new Map();

function showMessage({ key, name, text, time }, isUnsent = false) {
  const when = new Date(time ?? Date.now());
  const line = element(
    "li",
    { className: isUnsent ? "unsent" : "" },
    element("time", { dateTime: when.toISOString() }, when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })),
    element("span", { className: "who" }, name),
    text,
  );
  const list = byId("messages");
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
  const known = shown.get(key);
  if (known) known.replaceWith(line);
  else list.append(line);
  shown.set(key, line);
  if (shown.size > LINES_KEPT) {
    const [oldest] = shown.keys();
    shown.get(oldest).remove();
    shown.delete(oldest);
  }
  if (isAtEnd || isUnsent) list.scrollTop = list.scrollHeight;
}

function takeMessage({ data, offset, time }) {
  if (typeof data?.text !== "string") return;
  const key = String(data.key ?? `offset-${offset}`);
  waiting.delete(key);
  if (shown.get(key)?.className === "") return;
  showMessage({ key, name: String(data.name ?? "somebody"), text: data.text, time });
}

chat.on("publication", takeMessage);
watchRecovery(chat, takeMessage);

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("text").value.trim();
  if (!text) return;
  const message = { key: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, name: myName(), text };
  waiting.set(message.key, message);
  showMessage(message, true);
  byId("text").value = "";
  send(message);
});

/** What could not be sent is sent after the next connect; its key tells twins apart. */
async function send(message) {
  try {
    await chat.publish(message);
    waiting.delete(message.key);
  } catch (error) {
    if (!error.temporary) note(`not sent: ${error.message}`);
  }
}

function sendWaiting() {
  for (const message of waiting.values()) send(message);
}

// ---- people ----

const online = new Map();
const nameOf = new Map();

function myName() {
  return byId("name").value.trim() || "somebody";
}

function showPeople() {
  const label = (id) => (id === client.clientId ? `${myName()} (you)` : (nameOf.get(id) ?? `guest ${id.slice(0, 4)}`));
  const items = [...online.keys()].map((id) =>
    element("li", { className: id === client.clientId ? "me" : "" }, label(id)),
  );
  byId("people").replaceChildren(...items);
  byId("count").textContent = String(online.size);
}

function takeName({ data, info }) {
  // The server says who it was, so nobody can rename somebody else.
  if (info && typeof data?.name === "string") nameOf.set(info.client, data.name.slice(0, 24));
  showPeople();
}

async function readPresence() {
  try {
    const present = await chat.presence();
    online.clear();
    for (const id of Object.keys(present)) online.set(id, present[id]);
    showPeople();
  } catch (error) {
    if (!error.temporary) note(`presence: ${error.message}`);
  }
}

const announce = () => names.publish({ name: myName() }).catch(() => {});

chat.on("state", ({ state }) => state === "subscribed" && readPresence());
chat.on("join", (info) => {
  online.set(info.client, info);
  showPeople();
});
chat.on("leave", (info) => {
  online.delete(info.client);
  nameOf.delete(info.client);
  showPeople();
});
names.on("publication", takeName);
names.on("state", ({ state }) => state === "subscribed" && announce());
watchRecovery(names, takeName);
setInterval(announce, ANNOUNCE_MS);

byId("name").value = sessionStorage.getItem("name") ?? `Guest ${Math.floor(Math.random() * 900 + 100)}`;
byId("name").addEventListener("change", () => {
  sessionStorage.setItem("name", byId("name").value);
  announce();
  showPeople();
});
sessionStorage.setItem("name", byId("name").value);

// ---- ticker ----

const stocks = new Map();

function course(prices) {
  const low = Math.min(...prices);
  const span = Math.max(...prices) - low || 1;
  const x = (index) => ((index / Math.max(1, prices.length - 1)) * 100).toFixed(1);
  const y = (price) => (20 - ((price - low) / span) * 20).toFixed(1);
  return prices.map((price, index) => `${x(index)},${y(price)}`).join(" ");
}

function makeRow(symbol) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 -1 100 22");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "polyline"));
  const cells = { price: element("td"), change: element("td") };
  byId("quotes").append(
    element("tr", {}, element("th", { scope: "row" }, symbol), element("td", {}, svg), cells.price, cells.change),
  );
  return { ...cells, line, prices: [], time: 0 };
}

function takeQuote({ data }) {
  if (typeof data?.price !== "number") return;
  if (!stocks.has(data.symbol)) stocks.set(data.symbol, makeRow(data.symbol));
  const stock = stocks.get(data.symbol);
  if (data.time <= stock.time) return;
  stock.time = data.time;
  stock.prices.push(data.price);
  stock.prices.splice(0, stock.prices.length - QUOTES_KEPT);
  stock.line.setAttribute("points", course(stock.prices));
  stock.price.textContent = data.price.toFixed(2);
  stock.change.textContent = `${data.change < 0 ? "▼" : "▲"} ${Math.abs(data.change).toFixed(2)}`;
  stock.change.className = data.change < 0 ? "down" : "up";
}

ticker.on("publication", takeQuote);
watchRecovery(ticker, takeQuote);

client.connect();
