/**
 * The demo page: a chat, the users online, and prices, over the public protocol. This file owns the
 * connection, lets the user disconnect and reconnect it, and shows its state.
 *
 * Invariant: messages within the history window are shown once and in the channel's order, whatever
 * happens to the connection. Data that may be outdated while disconnected is marked.
 */
import { Chat } from "./demo/chat.js";
import { People } from "./demo/people.js";
import { Ticker } from "./demo/ticker.js";
import { byId, note, timeOfDay } from "./demo/page.js";
import { Tidings } from "./tidings.js";

const ENDPOINT = "/connection/websocket";
const BAD_REQUEST = 3501;

const scheme = location.protocol === "https:" ? "wss" : "ws";
const client = new Tidings(`${scheme}://${location.host}${ENDPOINT}`, { name: "demo" });
const [chatChannel, nameChannel, tickerChannel] = ["demo:chat", "demo:names", "demo:ticker"].map((name) => client.subscribe(name));
const people = new People(client, chatChannel, nameChannel);
const chat = new Chat(chatChannel, () => people.myName());
const ticker = new Ticker(tickerChannel);

// ---- the connection ----

const lead = byId("lead").textContent;
let countdown = 0;
let hasBeenLive = false;
let isCut = false;

const BUTTONS = {
  connected: "Cut my connection",
  connecting: "Connecting …",
  waiting: "Reconnect now",
  disconnected: "Connect again",
};

client.on("state", ({ state, reason, code, retryMs }) => {
  clearInterval(countdown);
  const wasLive = byId("status").dataset.state === "connected";
  byId("status").dataset.state = state;
  if (byId("main").dataset.live === "true") markStale();
  byId("main").dataset.live = String(state === "connected");
  byId("cut").textContent = BUTTONS[state];
  byId("cut").disabled = state === "connecting";
  const show = { connected: showLive, connecting: showConnecting, waiting: showWaiting, disconnected: showEnd };
  show[state]({ reason, code, retryMs, wasLive });
});

byId("cut").addEventListener("click", () => {
  isCut = client.state === "connected";
  if (isCut) client.disconnect();
  else client.connect();
});

/** Marks data that is not updated while disconnected with the current time. */
function markStale() {
  for (const mark of document.querySelectorAll(".stale")) mark.replaceChildren("as of ", timeOfDay(Date.now()));
}

const say = (text) => (byId("status-text").textContent = text);

function showLive() {
  say("live");
  note(hasBeenLive ? "connected again" : "connected");
  hasBeenLive = true;
  showError("");
}

function showConnecting() {
  say("connecting");
}

function showWaiting({ reason, retryMs = 0, wasLive }) {
  const until = Date.now() + retryMs;
  const show = () => say(`reconnecting in ${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s`);
  show();
  countdown = setInterval(show, 250);
  // Logged once: further attempts fail for the same reason.
  if (wasLive) note(`disconnected: ${reason}`);
  if (!hasBeenLive) explain(reason);
}

function showEnd({ reason, code }) {
  if (isCut) {
    say("cut off");
    note("you cut the connection; messages of others arrive when you connect again");
    return;
  }
  say("refused");
  note(`the server ended the connection: ${reason}${code ? ` (${code})` : ""}`);
  showError(
    code === BAD_REQUEST
      ? "This server requires a token, and this page has none: set client.allow_anonymous_connect_without_token."
      : `The server ended the connection: ${reason}${code ? ` (${code})` : ""}.`,
  );
}

/**
 * Browsers do not report why a WebSocket handshake was refused; a plain HTTP request returns the
 * reason. Used only before the first connection: later failures are failures of the network or of
 * the server.
 */
async function explain(reason) {
  let text = "";
  try {
    const response = await fetch(ENDPOINT, { method: "POST" });
    const { status } = response;
    if (status === 403) text = `pages of ${location.origin} may not connect (403); the setting is client.allowed_origins`;
    if (status === 404 || status === 503) text = `${(await response.text()).split("\n")[0]} (${status})`;
  } catch {
    // The server is not reachable.
  }
  if (hasBeenLive) return;
  if (byId("lead").textContent === lead) note(`no connection: ${text || reason}`);
  showError(text && `Refused: ${text}.`);
}

/** Shows an error in place of the lead paragraph; an empty text restores it. */
function showError(text) {
  byId("lead").textContent = text || lead;
  byId("lead").classList.toggle("error", Boolean(text));
}

// ---- recovery ----

for (const [subscription, view] of [[chatChannel, chat], [nameChannel, people], [tickerChannel, ticker]]) {
  const { channel } = subscription;
  subscription.on("recovered", ({ recovered, count }) => {
    if (!recovered || view.isHolding) {
      readHistory(subscription, view);
    } else if (count && subscription !== nameChannel) {
      note(`${channel}: recovered ${count} ${count === 1 ? "message" : "messages"}`);
    }
  });
  // The first subscription has no offset and therefore recovers nothing.
  let isFirst = true;
  subscription.on("state", ({ state, reason, code }) => {
    if (state === "unsubscribed") note(`${channel}: ${reason} (${code})`);
    if (state !== "subscribed" || !isFirst) return;
    isFirst = false;
    readHistory(subscription, view);
  });
}

/** Reads the retained history when recovery is not possible. */
async function readHistory(subscription, view) {
  const { channel } = subscription;
  const history = await subscription.history().catch((error) => error);
  // Not connected: the history is requested again after the next connect.
  if (history.code === 0) return;
  if (history instanceof Error) note(`${channel}: no history (${history.message})`);
  const { publications = [], epoch = null } = history;
  if (view.resume?.(epoch)) note("the server was restarted; without Redis or NATS its history is kept in memory and was lost");
  for (const publication of publications) view.take(publication);
}

client.connect();
