/**
 * The chat: lines in the channel's order, and behind them what waits to be sent.
 *
 * Invariant: a line that the server has stands where its offset puts it, in every tab alike; one
 * that it has not stands last.
 */
import { byId, element, keepAtEnd, note, timeOfDay } from "./page.js";

const LINES_KEPT = 200;
const RETRY_MS = 2_000;

export class Chat {
  #channel;
  #myName;
  /** Lines that the server has, oldest first: `{ key, era, offset, item }`. An era ends when the server has lost its history. */
  #lines = [];
  #keys = new Set();
  #era = 0;
  #epoch = null;
  /** What comes while it is not known yet whether offsets still count from where they did. */
  #held = null;
  /** What the channel has not brought back yet, by key: `{ message, item, isSent }`. */
  #waiting = new Map();
  #isSending = false;
  #isRecovering = 0;
  #retry = 0;

  constructor(channel, myName) {
    this.#channel = channel;
    this.#myName = myName;
    channel.on("publication", (publication) => this.take(publication));
    channel.on("recovered", ({ recovered, count }) => {
      if (!recovered) this.#held ??= [];
      this.#isRecovering = this.#held ? 0 : count;
    });
    // What is recovered comes first: a line may have been sent although nobody said so.
    channel.on("state", ({ state }) => state === "subscribed" && queueMicrotask(() => this.#send()));
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#say(byId("text").value.trim());
      byId("text").value = "";
    });
  }

  /** A publication of the channel, from a push, a recovery or the history. */
  take(publication) {
    if (this.#held) return this.#held.push(publication);
    const { data, offset, time } = publication;
    const isRecovered = this.#isRecovering > 0;
    this.#isRecovering = Math.max(0, this.#isRecovering - 1);
    if (typeof data?.text !== "string") return;
    const key = String(data.key ?? `${this.#era}-${offset}`);
    const pending = this.#waiting.get(key);
    this.#waiting.delete(key);
    keepAtEnd(byId("chat-scroll"), () => {
      pending?.item.remove();
      // Sent twice, because the first answer was lost: the first one stands.
      if (this.#keys.has(key)) return;
      this.#keys.add(key);
      const item = line({ name: String(data.name ?? "somebody"), text: data.text, time });
      item.classList.toggle("mine", pending !== undefined);
      item.classList.toggle("recovered", isRecovered && pending === undefined);
      this.#insert({ key, era: this.#era, offset: offset ?? Infinity, item });
    });
  }

  #insert(added) {
    let place = this.#lines.length;
    while (place > 0 && isBehind(this.#lines[place - 1], added)) place -= 1;
    this.#lines.splice(place, 0, added);
    const next = this.#lines[place + 1]?.item ?? byId("messages").querySelector(".unsent");
    byId("messages").insertBefore(added.item, next);
    for (const old of this.#lines.splice(0, this.#lines.length - LINES_KEPT)) {
      old.item.remove();
      this.#keys.delete(old.key);
    }
  }

  /** Whether it needs the history to go on. */
  get isHolding() {
    return this.#held !== null;
  }

  /** The history of this epoch follows. Whether everything that was before it is gone. */
  resume(epoch) {
    const isGone = this.#epoch !== null && epoch !== this.#epoch;
    this.#epoch = epoch;
    if (isGone) this.#beginEra();
    const held = this.#held ?? [];
    this.#held = null;
    for (const publication of held) this.take(publication);
    queueMicrotask(() => this.#send());
    return isGone;
  }

  /** The server has nothing of what was before: it stands in front, and offsets begin anew. */
  #beginEra() {
    this.#era += 1;
    for (const { item } of this.#lines) {
      item.classList.remove("recovered");
      item.classList.add("before");
    }
    for (const waiting of this.#waiting.values()) waiting.isSent = false;
  }

  #say(text) {
    if (!text) return;
    const key = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
    const message = { key, name: this.#myName(), text };
    const item = line({ ...message, time: Date.now() });
    item.classList.add("unsent", "mine");
    this.#waiting.set(key, { message, item, isSent: false });
    keepAtEnd(byId("chat-scroll"), () => byId("messages").append(item), { always: true });
    this.#send();
  }

  /** One after the other, in the order in which they were written; what the server has is shown when it comes back. */
  async #send() {
    if (this.#isSending || this.#held) return;
    clearTimeout(this.#retry);
    this.#isSending = true;
    for (let next; (next = [...this.#waiting.values()].find(({ isSent }) => !isSent)); ) {
      const failure = await this.#channel.publish(next.message).catch((error) => error);
      if (failure?.temporary) {
        this.#later(failure);
        break;
      }
      next.isSent = true;
      if (failure instanceof Error) this.#giveUp(next, failure);
    }
    this.#isSending = false;
  }

  #giveUp({ message, item }, error) {
    this.#waiting.delete(message.key);
    item.remove();
    note(`“${message.text}” was not sent: ${error.message}`);
  }

  /** Without a connection the next one sends it; a server that is busy is asked again. */
  #later(error) {
    if (error.code === 0) return;
    note(`not sent yet: ${error.message}`);
    this.#retry = setTimeout(() => this.#send(), RETRY_MS);
  }
}

const isBehind = (one, other) => one.era > other.era || (one.era === other.era && one.offset > other.offset);

function line({ name, text, time }) {
  const said = element("span", { className: "said" }, element("span", { className: "who" }, name), text);
  return element("li", {}, timeOfDay(time ?? Date.now()), said);
}
