/**
 * The chat: lines in the channel's order, followed by unsent lines.
 *
 * Invariant: published lines are sorted by offset, identically in every tab; unsent lines are last.
 */
import { byId, element, keepAtEnd, note, timeOfDay } from "./page.js";

const LINES_KEPT = 200;
const RETRY_MS = 2_000;

export class Chat {
  #channel;
  #myName;
  /**
   * Published lines, oldest first: `{ key, generation, offset, item }`. The generation changes when
   * the server has lost its history.
   */
  #lines = [];
  #keys = new Set();
  #generation = 0;
  #epoch = null;
  /** Publications received while it is unknown whether the epoch has changed; otherwise null. */
  #held = null;
  /** Lines not yet received from the channel, by key: `{ message, item, isSent }`. */
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
    // After the recovered publications: an unacknowledged line may be among them.
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
    const key = String(data.key ?? `${this.#generation}-${offset}`);
    const pending = this.#waiting.get(key);
    this.#waiting.delete(key);
    keepAtEnd(byId("chat-scroll"), () => {
      pending?.item.remove();
      // Published twice because the first reply was lost: the first one is kept.
      if (this.#keys.has(key)) return;
      this.#keys.add(key);
      const item = line({ name: String(data.name ?? "somebody"), text: data.text, time });
      item.classList.toggle("mine", pending !== undefined);
      item.classList.toggle("recovered", isRecovered && pending === undefined);
      this.#insert({ key, generation: this.#generation, offset: offset ?? Infinity, item });
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

  /** Whether publications are held until the history is read. */
  get isHolding() {
    return this.#held !== null;
  }

  /** Called before the history of this epoch; returns whether the earlier history was lost. */
  resume(epoch) {
    const isGone = this.#epoch !== null && epoch !== this.#epoch;
    this.#epoch = epoch;
    if (isGone) this.#beginGeneration();
    const held = this.#held ?? [];
    this.#held = null;
    for (const publication of held) this.take(publication);
    queueMicrotask(() => this.#send());
    return isGone;
  }

  /** The earlier history was lost: its lines stay first, and offsets restart. */
  #beginGeneration() {
    this.#generation += 1;
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

  /** Sends lines one by one in the order written; a line is shown as sent when it is received. */
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

  /** Not connected: sent after the next connect. Otherwise retried after RETRY_MS. */
  #later(error) {
    if (error.code === 0) return;
    note(`not sent yet: ${error.message}`);
    this.#retry = setTimeout(() => this.#send(), RETRY_MS);
  }
}

const isBehind = (one, other) =>
  one.generation === other.generation ? one.offset > other.offset : one.generation > other.generation;

function line({ name, text, time }) {
  const said = element("span", { className: "said" }, element("span", { className: "who" }, name), text);
  return element("li", {}, timeOfDay(time ?? Date.now()), said);
}
