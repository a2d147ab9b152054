/** The charts of the symbol on show: its candles or the price line of the last minutes, and the depth of its book beside them. */

import { CandleChart } from "./candle-chart.js";
import { CandleFeed } from "./candle-feed.js";
import { INTERVALS } from "./candles.js";
import { DepthChart } from "./depth-chart.js";
import { byId, element, Painter, setData, setText } from "./dom.js";
import { PriceLine, summarise, windowName } from "./price-line.js";

/** @typedef {import("./market-feed.js").Market} Market */
/** @typedef {import("./market-feed.js").Trade} Trade */

/** The price line, which is no candles. */
const LIVE = "live";
const LINE_LEAST_MS = 200;
const CANDLES_LEAST_MS = 400;
const DEPTH_LEAST_MS = 600;

export class ChartPanel {
  #client;
  #feed;
  #seen;
  #interval = "1m";
  #symbol = "";
  #from = 0;
  #panel = /** @type {HTMLElement} */ (document.querySelector(".chart-panel"));
  #note = byId("chart-note");
  #candles;
  #line;
  #depth;
  #linePainter;
  #depthPainter;
  #candlePainter;

  /**
   * @param {import("./client/gateway-client.js").GatewayClient} client
   * @param {() => {market: Market, scales: {price: number, quantity: number}}} seen the symbol on show
   * @param {(trade: Trade) => boolean} isOwn
   */
  constructor(client, seen, isOwn) {
    this.#client = client;
    this.#seen = seen;
    this.#feed = new CandleFeed(client);
    this.#candles = new CandleChart(byId("candles"), byId("candle-legend"), byId("candle-spoken"), {
      onOldest: () => this.#feed.loadOlder(),
    });
    this.#line = new PriceLine(byId("price-line"), { onChange: () => this.#linePainter.request() });
    this.#depth = new DepthChart(byId("depth"), byId("depth-note"), () => this.#depthPainter.request());
    this.#linePainter = new Painter(() => this.#paintLine(isOwn), LINE_LEAST_MS);
    this.#depthPainter = new Painter(() => this.#paintDepth(), DEPTH_LEAST_MS);
    this.#candlePainter = new Painter(() => this.#paintCandles(), CANDLES_LEAST_MS);
    this.#feed.addEventListener("change", (event) => {
      this.#from = Math.min(this.#from, /** @type {CustomEvent} */ (event).detail.from);
      this.#candlePainter.request();
    });
    this.#feed.addEventListener("state", () => this.#onState());
    byId("intervals").append(...[LIVE, ...Object.keys(INTERVALS)].map((each) => this.#choice(each)));
    this.#onInterval();
  }

  /** @param {string} symbol */
  show(symbol) {
    if (symbol === this.#symbol) return;
    this.#symbol = symbol;
    this.#follow();
  }

  /** The market on show changed, or time went on. */
  request() {
    this.#depthPainter.request();
    if (this.#interval === LIVE) this.#linePainter.request();
  }

  /** What has to be known of the chart. */
  paintNote() {
    const feed = this.#feed;
    let text = feed.problem;
    if (this.#interval === LIVE) text = "";
    else if (feed.candles && this.#client.state !== "live") text = "Frozen";
    else if (feed.candles && feed.stale) text = "Stale, waiting for news";
    else if (!text && !feed.candles) text = "Loading";
    setText(this.#note, text);
    setData(this.#note, "kind", text && text !== "Loading" ? "warn" : "plain");
    setData(this.#panel, "stale", String(this.#interval !== LIVE && Boolean(text) && feed.candles !== null));
  }

  /** @param {string} interval @returns {Node} */
  #choice(interval) {
    const radio = element("input", { attributes: { type: "radio", name: "interval", value: interval } });
    radio.checked = interval === this.#interval;
    radio.addEventListener("change", () => {
      this.#interval = interval;
      this.#onInterval();
    });
    const name = interval === LIVE ? "Live" : interval;
    return element("label", { className: "segment" }, radio, element("span", { text: name }));
  }

  #onInterval() {
    const isLine = this.#interval === LIVE;
    byId("candles").hidden = byId("candle-legend").hidden = isLine;
    byId("price-line").hidden = byId("line-legend").hidden = !isLine;
    this.#follow();
  }

  #follow() {
    this.#feed.show(this.#symbol, this.#interval === LIVE ? "" : this.#interval);
    this.request();
  }

  #onState() {
    if (!this.#feed.candles) {
      this.#from = 0;
      this.#candles.clear();
    }
    this.#paintEmpty();
    this.paintNote();
  }

  #paintCandles() {
    const { candles, symbol, interval } = this.#feed;
    if (!candles) return;
    this.#candles.paint(symbol, candles.list, this.#from, this.#seen().scales, interval === "1d");
    this.#from = Infinity;
    this.#paintEmpty();
  }

  #paintEmpty() {
    const { candles } = this.#feed;
    byId("chart-empty").hidden = this.#interval !== LIVE && Boolean(candles?.list.length);
    setText(byId("chart-empty"), candles ? "Nothing was traded yet" : "Waiting for the market");
  }

  /** @param {(trade: Trade) => boolean} isOwn */
  #paintLine(isOwn) {
    if (!this.#symbol || this.#interval !== LIVE) return;
    const { market, scales } = this.#seen();
    const summary = summarise(market);
    const empty = byId("chart-empty");
    empty.hidden = summary.trades.length + summary.quotes.length > 0;
    setText(empty, "Waiting for the market");
    const label = `${market.symbol}: best prices and trades of the last ${windowName(summary.windowMs)}`;
    byId("price-line").setAttribute("aria-label", label);
    this.#line.paint(market, summary, scales, isOwn);
  }

  #paintDepth() {
    if (!this.#symbol) return;
    const { market, scales } = this.#seen();
    this.#depth.paint(market, scales);
  }
}
