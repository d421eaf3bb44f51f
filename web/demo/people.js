/**
 * The users online, from presence, joins and leaves of one channel, and their names, from another.
 *
 * Invariant: a name is assigned to the client id that the server attaches to the publication, so a
 * client cannot rename another one.
 */
import { byId, element, note } from "./page.js";

const ANNOUNCE_MS = 240_000;
const NAME_MAX = 24;

export class People {
  #client;
  #channel;
  #names;
  #online = new Set();
  #nameOf = new Map();

  constructor(client, channel, names) {
    this.#client = client;
    this.#channel = channel;
    this.#names = names;
    const field = byId("name");
    field.value = sessionStorage.getItem("name") ?? `Guest ${Math.floor(Math.random() * 900 + 100)}`;
    sessionStorage.setItem("name", field.value);
    field.addEventListener("change", () => {
      sessionStorage.setItem("name", field.value);
      this.#announce();
      this.#show();
    });
    channel.on("state", ({ state }) => state === "subscribed" && this.#readPresence());
    channel.on("join", ({ client: id }) => {
      this.#online.add(id);
      this.#show();
    });
    channel.on("leave", ({ client: id }) => {
      this.#online.delete(id);
      this.#nameOf.delete(id);
      this.#show();
    });
    names.on("publication", (publication) => this.take(publication));
    names.on("state", ({ state }) => state === "subscribed" && this.#announce());
    setInterval(() => this.#announce(), ANNOUNCE_MS);
  }

  myName() {
    return byId("name").value.trim() || "somebody";
  }

  /** Handles a publication with the name of a client. */
  take({ data, info }) {
    if (info && typeof data?.name === "string") this.#nameOf.set(info.client, data.name.slice(0, NAME_MAX));
    this.#show();
  }

  /** Publishes the name. Errors are ignored: it is published again after the next connect. */
  #announce() {
    this.#names.publish({ name: this.myName() }).catch(() => {});
  }

  async #readPresence() {
    try {
      this.#online = new Set(Object.keys(await this.#channel.presence()));
      this.#show();
    } catch (error) {
      if (!error.temporary) note(`presence: ${error.message}`);
    }
  }

  #show() {
    // Without a connection the own client id is unknown, and the list is not updated.
    const me = this.#client.clientId;
    if (!me) return;
    const label = (id) => (id === me ? `${this.myName()} (you)` : (this.#nameOf.get(id) ?? `guest ${id.slice(0, 4)}`));
    const items = [...this.#online].map((id) => element("li", { className: id === me ? "me" : "" }, label(id)));
    byId("people").replaceChildren(...items);
    byId("count").textContent = String(this.#online.size);
  }
}
