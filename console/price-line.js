/**
 * The price line of the last minutes on a canvas: the middle between the best prices, the room between them as a band,
 * and each trade as a triangle whose size is its quantity. A line from trade to trade would mostly show the hopping
 * between bid and ask; it is drawn only where the book has no two sides.
 *
 * Floats place pixels; every number that is written is exact (axis steps are whole units of the price's last digit).
 */

import { add, compare, format, padded, toPixels, ZERO } from "./client/decimal.js";
import { clockText, Size } from "./dom.js";

/** @typedef {import("./market-feed.js").Market} Market */
/** @typedef {import("./market-feed.js").Trade} Trade */
/** @typedef {import("./market-feed.js").Quote} Quote */
/** @typedef {import("./client/decimal.js").Decimal} Decimal */
/**
 * @typedef {object} Summary
 * @property {Trade[]} trades
 * @property {Quote[]} quotes
 * @property {Decimal | null} high
 * @property {Decimal | null} low
 * @property {Decimal} volume in the base currency
 * @property {number} windowMs
 */

/** The window grows with what there is to show, in steps, so that a young page is not mostly empty. */
const WINDOWS_MS = [30_000, 60_000, 120_000, 180_000, 300_000];
const MARGIN = { top: 22, bottom: 22, left: 12 };
const LABEL_GAP = 8;
const SMALLEST_TRADE = 2;
const LARGEST_TRADE = 6;

/** @param {Market} market @returns {Summary} what happened within the window on show */
export function summarise(market) {
  const now = market.now();
  const oldest = Math.min(market.trades[0]?.time ?? now, market.quotes[0]?.time ?? now);
  const windowMs = WINDOWS_MS.find((each) => each >= now - oldest) ?? WINDOWS_MS[WINDOWS_MS.length - 1];
  const trades = market.trades.slice(firstWithin(market.trades, now - windowMs));
  // One quote from before the window holds the prices at its left edge.
  const quotes = market.quotes.slice(Math.max(0, firstWithin(market.quotes, now - windowMs) - 1));
  let high = null;
  let low = null;
  let volume = ZERO;
  for (const { price, quantity } of trades) {
    if (!high || compare(price, high) > 0) high = price;
    if (!low || compare(price, low) < 0) low = price;
    volume = add(volume, quantity);
  }
  return { trades, quotes, high, low, volume, windowMs };
}

/** @param {{time: number}[]} entries @param {number} since @returns {number} index of the first one not older */
function firstWithin(entries, since) {
  let index = entries.length;
  while (index > 0 && entries[index - 1].time >= since) index -= 1;
  return index;
}

/**
 * @param {Quote[]} quotes @param {number} now
 * @returns {{quotes: Quote[], until: number}[]} the runs between the gaps, and where each ends
 */
function stretches(quotes, now) {
  /** @type {{quotes: Quote[], until: number}[]} */
  const found = [];
  let open = false;
  for (const quote of quotes) {
    const isGap = Number.isNaN(quote.bid);
    if (isGap && open) found[found.length - 1].until = quote.time;
    else if (!isGap && open) found[found.length - 1].quotes.push(quote);
    else if (!isGap) found.push({ quotes: [quote], until: now });
    open = !isGap;
  }
  return found;
}

/** @param {number} windowMs @returns {string} */
export const windowName = (windowMs) => (windowMs < 60_000 ? `${windowMs / 1000} s` : `${windowMs / 60_000} min`);

/**
 * @param {bigint} span
 * @param {number} most how many labels fit
 * @returns {bigint} 1, 2 or 5 times a power of ten, at least 1
 */
export function niceStep(span, most) {
  let step = 1n;
  for (let index = 0; span / step > BigInt(Math.max(1, most)); index += 1) {
    step = (step * [2n, 5n, 2n][index % 3]) / [1n, 2n, 1n][index % 3];
  }
  return step;
}

export class PriceLine {
  #canvas;
  #context;
  #colours = /** @type {Record<string, string>} */ ({});
  #font = "11px sans-serif";
  /** @type {{x: number, y: number} | null} */
  #pointer = null;
  #size;
  #drawn = { width: 0, height: 0, ratio: 0 };

  /** @param {HTMLCanvasElement} canvas @param {{onChange: () => void}} callbacks */
  constructor(canvas, { onChange }) {
    this.#canvas = canvas;
    this.#context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.#size = new Size(canvas, onChange);
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => {
        this.#readColours();
        onChange();
      });
    }
    canvas.addEventListener("pointermove", (event) => {
      this.#pointer = { x: event.offsetX, y: event.offsetY };
      onChange();
    });
    canvas.addEventListener("pointerleave", () => {
      this.#pointer = null;
      onChange();
    });
    this.#readColours();
  }

  /**
   * @param {Market} market
   * @param {Summary} summary
   * @param {{price: number, quantity: number}} scales
   * @param {(trade: Trade) => boolean} isOwn
   */
  paint(market, summary, scales, isOwn) {
    this.#fitCanvas();
    const context = this.#context;
    const { width, height, ratio } = this.#drawn;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const { trades, quotes, windowMs } = summary;
    const known = quotes.filter(({ bid }) => !Number.isNaN(bid));
    const levels = [...trades.map((trade) => trade.pixel), ...known.flatMap(({ bid, ask }) => [bid, ask])];
    if (!levels.length || width < 120) return;

    const scale = scales.price;
    const unit = 10 ** scale;
    let bottom = BigInt(Math.floor(levels.reduce((least, level) => Math.min(least, level)) * unit));
    let top = BigInt(Math.ceil(levels.reduce((most, level) => Math.max(most, level)) * unit));
    const air = (top - bottom) / 10n + 1n;
    top += air;
    bottom = bottom > air ? bottom - air : 0n;

    context.font = this.#font;
    const axisWidth = Math.ceil(context.measureText(format({ units: top, scale })).width) + 2 * LABEL_GAP;
    const area = {
      left: MARGIN.left,
      right: width - axisWidth,
      top: MARGIN.top,
      bottom: height - MARGIN.bottom,
    };
    const now = market.now();
    const floatBottom = Number(bottom);
    const floatSpan = Number(top - bottom);
    const plot = {
      area,
      now,
      x: (/** @type {number} */ time) => area.right - ((now - time) / windowMs) * (area.right - area.left),
      y: (/** @type {number} */ price) =>
        area.bottom - ((price * unit - floatBottom) / floatSpan) * (area.bottom - area.top),
    };
    this.#paintPriceAxis(plot, bottom, top, scale);
    this.#paintTimeAxis(plot, windowMs);
    if (known.length) for (const stretch of stretches(quotes, now)) this.#paintQuotes(plot, stretch);
    else if (trades.length) this.#paintSteps(plot, trades.map(({ time, pixel }) => [time, pixel]), now);
    this.#paintTrades(plot, trades);
    this.#paintOwn(plot, trades, isOwn);
    this.#paintLast(plot, market, scale, axisWidth);
    this.#paintPointer(plot, trades, scales);
  }

  /** @param {any} plot @param {bigint} bottom @param {bigint} top @param {number} scale */
  #paintPriceAxis({ area }, bottom, top, scale) {
    const context = this.#context;
    const step = niceStep(top - bottom, Math.floor((area.bottom - area.top) / 36));
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (let units = (bottom / step + 1n) * step; units < top; units += step) {
      const y = area.bottom - (Number(units - bottom) / Number(top - bottom)) * (area.bottom - area.top);
      context.strokeStyle = this.#colours.grid;
      line(context, area.left, Math.round(y) + 0.5, area.right, Math.round(y) + 0.5);
      context.fillStyle = this.#colours.muted;
      context.fillText(format({ units, scale }), area.right + LABEL_GAP, y);
    }
  }

  /** @param {any} plot @param {number} windowMs */
  #paintTimeAxis({ area, now, x }, windowMs) {
    const context = this.#context;
    const room = (area.right - area.left) / 78;
    const step = [10_000, 15_000, 30_000, 60_000, 120_000, 300_000].find((each) => windowMs / each <= room) ?? 300_000;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    context.fillStyle = this.#colours.muted;
    for (let time = Math.ceil((now - windowMs) / step) * step; time <= now; time += step) {
      const at = x(time);
      if (at < area.left + 24 || at > area.right - 20) continue;
      context.strokeStyle = this.#colours.grid;
      line(context, Math.round(at) + 0.5, area.top, Math.round(at) + 0.5, area.bottom);
      const text = clockText(time);
      context.fillText(step % 60_000 === 0 ? text.slice(0, 5) : text, at, area.bottom + 15);
    }
  }

  /** @param {any} plot @param {{quotes: Quote[], until: number}} stretch */
  #paintQuotes(plot, { quotes, until }) {
    const { area, x, y } = plot;
    const steps = (/** @type {"bid" | "ask"} */ side) =>
      quotes.flatMap((quote, index) => {
        const level = y(quote[side]);
        const [from, to] = [quote.time, quotes[index + 1]?.time ?? until].map((time) => Math.max(area.left, x(time)));
        return [[from, level], [to, level]];
      });
    const band = new Path2D();
    for (const [at, level] of [...steps("ask"), ...steps("bid").reverse()]) band.lineTo(at, level);
    this.#context.fillStyle = this.#colours.band;
    this.#context.fill(band);
    this.#paintSteps(plot, quotes.map(({ time, bid, ask }) => [time, (bid + ask) / 2]), until);
  }

  /** @param {any} plot @param {number[][]} points time and price, oldest first @param {number} until */
  #paintSteps({ area, x, y }, points, until) {
    const context = this.#context;
    const path = new Path2D();
    let level = y(points[0][1]);
    for (const [time, price] of points) {
      const at = Math.max(area.left, Math.min(area.right, x(time)));
      path.lineTo(at, level);
      level = y(price);
      path.lineTo(at, level);
    }
    const end = Math.max(area.left, Math.min(area.right, x(until)));
    path.lineTo(end, level);
    const wash = new Path2D(path);
    wash.lineTo(end, area.bottom);
    wash.lineTo(Math.max(area.left, x(points[0][0])), area.bottom);
    wash.closePath();
    const gradient = context.createLinearGradient(0, area.top, 0, area.bottom);
    gradient.addColorStop(0, this.#colours.wash);
    gradient.addColorStop(1, "transparent");
    context.fillStyle = gradient;
    context.fill(wash);
    context.strokeStyle = this.#colours.line;
    context.lineWidth = 1.5;
    context.lineJoin = "round";
    context.stroke(path);
  }

  /** One path a side: hundreds of trades cost two fills. @param {any} plot @param {Trade[]} trades */
  #paintTrades({ x, y }, trades) {
    const context = this.#context;
    const sizes = trades.map((trade) => Math.sqrt(toPixels(trade.quantity)));
    const largest = sizes.reduce((most, size) => Math.max(most, size), 0);
    for (const [aggressor, colour, up] of /** @type {const} */ ([
      ["buy", this.#colours.buy, -1],
      ["sell", this.#colours.sell, 1],
    ])) {
      const path = new Path2D();
      trades.forEach((trade, index) => {
        if ((trade.aggressor ?? "buy") !== aggressor) return;
        const at = x(trade.time);
        const level = y(trade.pixel);
        const size = SMALLEST_TRADE + (LARGEST_TRADE - SMALLEST_TRADE) * (sizes[index] / largest);
        path.moveTo(at, level + up * size);
        path.lineTo(at + size, level - up * size * 0.8);
        path.lineTo(at - size, level - up * size * 0.8);
        path.closePath();
      });
      context.fillStyle = colour;
      context.globalAlpha = 0.75;
      context.fill(path);
      context.globalAlpha = 1;
    }
  }

  /** @param {any} plot @param {Trade[]} trades @param {(trade: Trade) => boolean} isOwn */
  #paintOwn({ x, y }, trades, isOwn) {
    const context = this.#context;
    for (const trade of trades) {
      if (!isOwn(trade)) continue;
      const at = x(trade.time);
      const level = y(trade.pixel);
      context.beginPath();
      context.moveTo(at, level - 6);
      context.lineTo(at + 6, level);
      context.lineTo(at, level + 6);
      context.lineTo(at - 6, level);
      context.closePath();
      context.fillStyle = this.#colours.accent;
      context.fill();
      context.strokeStyle = this.#colours.panel;
      context.lineWidth = 1.5;
      context.stroke();
    }
  }

  /** @param {any} plot @param {Market} market @param {number} scale @param {number} axisWidth */
  #paintLast({ area, y }, market, scale, axisWidth) {
    const last = market.trades.at(-1);
    if (!last) return;
    const context = this.#context;
    const level = y(last.pixel);
    const colour = { up: this.#colours.buy, down: this.#colours.sell, level: this.#colours.muted }[market.direction];
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.setLineDash([3, 3]);
    line(context, area.left, Math.round(level) + 0.5, area.right, Math.round(level) + 0.5);
    context.setLineDash([]);
    context.fillStyle = colour;
    context.beginPath();
    context.roundRect(area.right + 2, level - 9, axisWidth - 5, 18, 3);
    context.fill();
    context.fillStyle = this.#colours.panel;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillText(padded(last.price, scale), area.right + LABEL_GAP, level + 0.5);
  }

  /** @param {any} plot @param {Trade[]} trades @param {{price: number, quantity: number}} scales */
  #paintPointer({ area, x, y }, trades, scales) {
    const pointer = this.#pointer;
    if (!pointer || pointer.x < area.left || pointer.x > area.right || !trades.length) return;
    const context = this.#context;
    const nearest = trades.reduce((best, trade) =>
      Math.abs(x(trade.time) - pointer.x) < Math.abs(x(best.time) - pointer.x) ? trade : best,
    );
    const at = x(nearest.time);
    const level = y(nearest.pixel);
    context.strokeStyle = this.#colours.muted;
    context.lineWidth = 1;
    context.setLineDash([2, 3]);
    line(context, Math.round(at) + 0.5, area.top, Math.round(at) + 0.5, area.bottom);
    context.setLineDash([]);
    context.fillStyle = this.#colours.line;
    context.beginPath();
    context.arc(at, level, 3.5, 0, 2 * Math.PI);
    context.fill();
    const cue = nearest.aggressor ? { buy: "▲ ", sell: "▼ " }[nearest.aggressor] : "";
    const price = padded(nearest.price, scales.price);
    const text = `${clockText(nearest.time)}   ${cue}${price} × ${padded(nearest.quantity, scales.quantity)}`;
    const width = context.measureText(text).width + 16;
    const left = Math.min(Math.max(area.left, at - width / 2), area.right - width);
    context.fillStyle = this.#colours.raised;
    context.strokeStyle = this.#colours.strong;
    context.beginPath();
    context.roundRect(left, area.top, width, 22, 4);
    context.fill();
    context.stroke();
    context.fillStyle = this.#colours.text;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillText(text, left + 8, area.top + 11.5);
  }

  #fitCanvas() {
    const ratio = devicePixelRatio || 1;
    const { width, height } = this.#size;
    const drawn = this.#drawn;
    if (drawn.width === width && drawn.height === height && drawn.ratio === ratio) return;
    this.#drawn = { width, height, ratio };
    this.#canvas.width = Math.round(width * ratio);
    this.#canvas.height = Math.round(height * ratio);
  }

  #readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    this.#colours = {
      line: read("--chart-line"),
      wash: read("--chart-wash"),
      band: read("--chart-band"),
      grid: read("--chart-grid"),
      muted: read("--muted"),
      text: read("--text"),
      panel: read("--panel"),
      raised: read("--raised"),
      strong: read("--line-strong"),
      accent: read("--accent"),
      buy: read("--buy"),
      sell: read("--sell"),
    };
    this.#font = `11px ${getComputedStyle(document.body).fontFamily}`;
  }
}

/** @param {CanvasRenderingContext2D} context @param {number} x1 @param {number} y1 @param {number} x2 @param {number} y2 */
function line(context, x1, y1, x2, y2) {
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
}
