/** The tape: the last trades, newest on top. Rows are made once and go round, so a burst costs no new elements. */

import { padded } from "./client/decimal.js";
import { clockText, element, pinColumns, setData, setText, Size, unpinColumns } from "./dom.js";

/** @typedef {import("./market-feed.js").Market} Market */
/** @typedef {import("./market-feed.js").Trade} Trade */

const ROWS = 60;
const WORDS = { buy: "buy", sell: "sell", unknown: "" };

export class Tape {
  #root;
  /** What is drawn. */
  #drawn = { symbol: "", snapshots: 0, count: 0, scales: "", ownCount: 0 };
  /** How long the longest numbers are, and how wide the tape: while that stays the same, so does how they fit. */
  #measured = "";
  /** Characters of the longest price and quantity drawn, and whether a trade is marked as ours. */
  #longest = [0, 0, 0];
  #size;

  /** @param {HTMLElement} root */
  constructor(root) {
    this.#root = root;
    this.#size = new Size(root, () => this.#fit());
  }

  /**
   * @param {Market} market
   * @param {{price: number, quantity: number}} scales
   * @param {(trade: Trade) => boolean} isOwn
   * @param {number} ownCount grows with our orders: a trade may turn out to be ours after it was drawn
   */
  paint(market, scales, isOwn, ownCount) {
    const drawn = this.#drawn;
    const scalesText = `${scales.price} ${scales.quantity}`;
    const sameMarket = drawn.symbol === market.symbol && drawn.snapshots === market.tradeSnapshots;
    const anew = !sameMarket || drawn.scales !== scalesText || drawn.ownCount !== ownCount;
    const fresh = anew ? ROWS : Math.min(ROWS, market.tradeCount - drawn.count);
    if (anew) {
      this.#root.replaceChildren();
      this.#longest = [0, 0, 0];
    }
    // slice(-0) would be everything.
    for (const trade of fresh ? market.trades.slice(-fresh) : []) this.#prepend(trade, scales, isOwn(trade));
    const { symbol, tradeSnapshots: snapshots, tradeCount: count } = market;
    this.#drawn = { symbol, snapshots, count, scales: scalesText, ownCount };
    this.#fit();
  }

  /** Numbers are never cut: where they do not fit they are in small print, and in the end the tape scrolls. */
  #fit() {
    const measured = `${this.#longest} ${this.#size.width}`;
    if (measured === this.#measured) return;
    this.#measured = measured;
    const frame = /** @type {HTMLElement} */ (this.#root.parentElement);
    unpinColumns(frame);
    setData(frame, "fit", "all");
    if (frame.scrollWidth > frame.clientWidth) setData(frame, "fit", "small");
    const row = this.#root.firstElementChild;
    if (row) pinColumns(frame, [...row.querySelectorAll("span")]);
  }

  /** @param {Trade} trade @param {{price: number, quantity: number}} scales @param {boolean} own */
  #prepend(trade, scales, own) {
    /** @type {any} */
    const row = this.#root.childElementCount >= ROWS ? this.#root.lastElementChild : newRow();
    const [time, price, side, quantity] = row.children;
    setText(time, clockText(trade.time));
    setText(price, padded(trade.price, scales.price));
    setText(side, WORDS[trade.aggressor ?? "unknown"] + (own ? ", yours" : ""));
    setText(quantity, padded(trade.quantity, scales.quantity));
    const lengths = [price.textContent.length, quantity.textContent.length, Number(own)];
    this.#longest = this.#longest.map((longest, index) => Math.max(longest, lengths[index]));
    setData(row, "side", trade.aggressor ?? "unknown");
    setData(row, "own", String(own));
    this.#root.prepend(row);
  }
}

function newRow() {
  return element(
    "li",
    {},
    element("span", { className: "time" }),
    element("span", { className: "price" }),
    element("b", { className: "visually-hidden" }),
    element("span", { className: "quantity" }),
  );
}
