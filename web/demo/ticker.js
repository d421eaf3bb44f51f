/**
 * Prices, each with a chart of recent values.
 *
 * Invariant: a price is never replaced by an older one.
 */
import { byId, element } from "./page.js";

const QUOTES_KEPT = 60;

export class Ticker {
  #stocks = new Map();

  constructor(channel) {
    channel.on("publication", (publication) => this.take(publication));
  }

  take({ data }) {
    if (typeof data?.price !== "number" || typeof data.change !== "number") return;
    if (!this.#stocks.has(data.symbol)) this.#stocks.set(data.symbol, makeRow(String(data.symbol)));
    const stock = this.#stocks.get(data.symbol);
    if (data.time <= stock.time) return;
    stock.time = data.time;
    stock.prices.push(data.price);
    stock.prices.splice(0, stock.prices.length - QUOTES_KEPT);
    stock.line.setAttribute("points", course(stock.prices));
    stock.price.textContent = data.price.toFixed(2);
    const [arrow, direction] = data.change < 0 ? ["▼", "down"] : data.change > 0 ? ["▲", "up"] : ["", ""];
    stock.change.textContent = `${arrow} ${Math.abs(data.change).toFixed(2)}`;
    stock.change.className = direction;
  }
}

function course(prices) {
  const low = Math.min(...prices);
  const span = Math.max(...prices) - low || 1;
  const x = (index) => ((index / Math.max(1, prices.length - 1)) * 100).toFixed(1);
  const y = (price) => (20 - ((price - low) / span) * 20).toFixed(1);
  return prices.map((price, index) => `${x(index)},${y(price)}`).join(" ");
}

function makeRow(symbol) {
  const draw = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);
  const svg = draw("svg");
  svg.setAttribute("viewBox", "0 -1 100 22");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const line = svg.appendChild(draw("polyline"));
  const cells = { price: element("td"), change: element("td") };
  const row = element("tr", {}, element("th", { scope: "row" }, symbol), element("td", {}, svg), cells.price, cells.change);
  // Sorted by symbol, so that the order is the same on each start.
  const next = [...byId("quotes").rows].find((other) => other.cells[0].textContent > symbol);
  byId("quotes").insertBefore(row, next ?? null);
  return { ...cells, line, prices: [], time: 0 };
}
