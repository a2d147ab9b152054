/**
 * Candles and their volume, drawn by TradingView's Lightweight Charts (vendor/; docs/decisions.md says why).
 *
 * The library places pixels by floats. Every number that is read is exact: the candle under the crosshair is written beside
 * the chart from the gateway's own digits, and so is the last price on the axis.
 */

import { compare, divide, format, isZero, multiply, padded, subtract, toPixels } from "./client/decimal.js";
import { currencies, element, setText } from "./dom.js";
import { CandlestickSeries, createChartEx, CrosshairMode, defaultHorzScaleBehavior, HistogramSeries } from "./vendor/lightweight-charts.js";

/** @typedef {import("./candles.js").Candle} Candle */

const BAR_SPACING = { least: 1.5, usual: 8, most: 22 };
const RIGHT_BARS = 3;
/** So near the left edge more of the past is asked for, in candles. */
const OLDER_WITHIN = 30;
const ZOOM = 1.25;
const PAGE = 10;
/** A double has so many digits that can be trusted: more do not help to place a pixel. */
const AXIS_DIGITS = 14;
const HUNDRED = { units: 100n, scale: 0 };
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (/** @type {number} */ value) => String(value).padStart(2, "0");

/** @param {number} time milliseconds @param {boolean} utc @returns {Date} whose UTC fields are what a clock on the wall says */
const onTheWall = (time, utc) => new Date(time - (utc ? 0 : new Date(time).getTimezoneOffset() * 60_000));

/** How much an axis mark weighs: a day's first candle before an hour's. In the reader's zone, where the library has UTC. */
/** @param {Date} at @param {Date} before @returns {number} the library's weights */
export function markWeight(at, before) {
  if (at.getUTCFullYear() !== before.getUTCFullYear()) return 70;
  if (at.getUTCMonth() !== before.getUTCMonth()) return 60;
  if (at.getUTCDate() !== before.getUTCDate()) return 50;
  for (const [hours, weight] of [[12, 33], [6, 32], [3, 31], [1, 30]]) {
    if (Math.floor(at.getUTCHours() / hours) !== Math.floor(before.getUTCHours() / hours)) return weight;
  }
  for (const [minutes, weight] of [[30, 22], [5, 21], [1, 20]]) {
    if (Math.floor(at.getUTCMinutes() / minutes) !== Math.floor(before.getUTCMinutes() / minutes)) return weight;
  }
  return 0;
}

/** @param {number} time milliseconds @param {boolean} isDay a day of UTC, which has no hours @returns {string} */
export function candleTime(time, isDay) {
  const at = onTheWall(time, isDay);
  const day = `${two(at.getUTCDate())} ${MONTHS[at.getUTCMonth()]} ${at.getUTCFullYear()}`;
  return isDay ? `${day} UTC` : `${day} ${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
}

export class CandleChart {
  #root;
  #legend;
  #chart;
  #candleSeries;
  #volumeSeries;
  /** @type {Candle[]} as drawn */
  #list = [];
  #isDay = false;
  #symbol = "";
  #scales = { price: 0, quantity: 0 };
  /** @type {Candle | null} under the crosshair */
  #pointed = null;
  #spoken;
  /** @type {Record<string, string>} */
  #colours = {};
  #last = { pixel: NaN, text: "" };

  /**
   * @param {HTMLElement} root takes the chart and the focus
   * @param {any} legend takes the numbers of a candle
   * @param {HTMLElement} spoken is read aloud while the crosshair is moved by keys
   * @param {{onOldest: () => void}} callbacks
   */
  constructor(root, legend, spoken, { onOldest }) {
    this.#root = root;
    this.#legend = legend;
    this.#spoken = spoken;
    const chart = this;
    class LocalTimes extends defaultHorzScaleBehavior() {
      /** @param {any[]} points @param {number} start */
      fillWeightsForPoints(points, start) {
        const wall = (/** @type {any} */ point) => onTheWall(Number(point.originalTime) * 1000, chart.#isDay);
        for (let at = start; at < points.length; at += 1) {
          points[at].timeWeight = at > 0 ? markWeight(wall(points[at]), wall(points[at - 1])) : 0;
        }
      }
    }
    this.#chart = createChartEx(root, new LocalTimes(), {
      autoSize: true,
      // Its logo brings markup and a style of its own, which the page's policy refuses; the page has the notice and link.
      layout: { attributionLogo: false, background: { color: "transparent" }, fontSize: 11 },
      crosshair: { mode: CrosshairMode.Normal },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.14, bottom: 0.24 } },
      timeScale: {
        borderVisible: false,
        rightOffset: RIGHT_BARS,
        barSpacing: BAR_SPACING.usual,
        minBarSpacing: BAR_SPACING.least,
        secondsVisible: false,
        timeVisible: true,
        tickMarkFormatter: (/** @type {number} */ time, /** @type {number} */ type) => this.#markText(time, type),
      },
      localization: { timeFormatter: (/** @type {number} */ time) => candleTime(time * 1000, this.#isDay) },
      // A finger that moves up and down scrolls the page.
      handleScroll: { vertTouchDrag: false },
      kineticScroll: { touch: !matchMedia("(prefers-reduced-motion: reduce)").matches, mouse: false },
    });
    this.#candleSeries = this.#chart.addSeries(CandlestickSeries, { borderVisible: false });
    this.#volumeSeries = this.#chart.addSeries(HistogramSeries, {
      priceScaleId: "",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.#volumeSeries.priceScale().applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.#chart.subscribeCrosshairMove((/** @type {any} */ { logical, point }) => {
      this.#pointed = point && logical !== undefined ? (this.#list[logical] ?? null) : null;
      this.#paintLegend();
    });
    this.#chart.timeScale().subscribeVisibleLogicalRangeChange((/** @type {any} */ range) => {
      if (range && this.#list.length && range.from < OLDER_WITHIN) onOldest();
    });
    root.addEventListener("keydown", (event) => this.#onKey(event));
    root.addEventListener("blur", () => this.#leave());
    for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
      matchMedia(query).addEventListener("change", () => {
        this.#readColours();
        this.#setData();
      });
    }
    this.#readColours();
  }

  /**
   * @param {string} symbol
   * @param {Candle[]} list oldest first, without holes
   * @param {number} from the index of the first one that is different from what was drawn
   * @param {{price: number, quantity: number}} scales digits after the point
   * @param {boolean} isDay
   */
  paint(symbol, list, from, scales, isDay) {
    const before = this.#list;
    const oldest = before[0]?.time;
    const anew = symbol !== this.#symbol || isDay !== this.#isDay || !before.length;
    const rescaled = scales.price !== this.#scales.price;
    this.#symbol = symbol;
    this.#scales = scales;
    this.#isDay = isDay;
    this.#list = list.slice();
    const last = list[list.length - 1];
    if (last) this.#last = { pixel: toPixels(last.close), text: padded(last.close, scales.price) };
    if (anew || rescaled) this.#setScale();
    if (anew || oldest !== list[0]?.time || from < before.length - 3) this.#setData();
    else for (let at = from; at < list.length; at += 1) this.#update(list[at], at < before.length - 1);
    if (anew) this.#showNewest();
    if (this.#pointed) this.#pointed = this.#list.find(({ time }) => time === this.#pointed?.time) ?? null;
    this.#paintLegend();
  }

  /** Nothing is known of what is on show. */
  clear() {
    this.#list = [];
    this.#pointed = null;
    this.#setData();
    this.#paintLegend();
  }

  #showNewest() {
    const scale = this.#chart.timeScale();
    const width = Math.max(1, this.#root.clientWidth);
    // A young market is not a strip of sticks at the edge.
    const fitting = width / (this.#list.length + 4 * RIGHT_BARS);
    scale.applyOptions({ barSpacing: Math.min(BAR_SPACING.most, Math.max(BAR_SPACING.usual, fitting)) });
    this.#candleSeries.priceScale().applyOptions({ autoScale: true });
    scale.scrollToPosition(RIGHT_BARS, false);
  }

  #setScale() {
    const whole = Math.max(1, Math.ceil(Math.log10(Math.abs(this.#last.pixel) + 1)));
    const digits = Math.max(0, Math.min(this.#scales.price, AXIS_DIGITS - whole));
    const formatter = (/** @type {number} */ price) => (price === this.#last.pixel ? this.#last.text : price.toFixed(digits));
    this.#candleSeries.applyOptions({ priceFormat: { type: "custom", minMove: 10 ** -digits, formatter } });
  }

  #setData() {
    this.#candleSeries.setData(this.#list.map(candlePoint));
    this.#volumeSeries.setData(this.#list.map((candle) => this.#volumePoint(candle)));
  }

  /** @param {Candle} candle @param {boolean} isPast */
  #update(candle, isPast) {
    this.#candleSeries.update(candlePoint(candle), isPast);
    this.#volumeSeries.update(this.#volumePoint(candle), isPast);
  }

  /** @param {Candle} candle */
  #volumePoint(candle) {
    const color = compare(candle.close, candle.open) < 0 ? this.#colours.sellWash : this.#colours.buyWash;
    return { time: candle.time / 1000, value: toPixels(candle.volume), color };
  }

  /** @param {number} time seconds @param {number} type the library's: year, month, day, or a time @returns {string} */
  #markText(time, type) {
    const at = onTheWall(time * 1000, this.#isDay);
    if (type === 0) return String(at.getUTCFullYear());
    if (type === 1) return MONTHS[at.getUTCMonth()];
    if (type === 2) return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}`;
    return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  }

  #paintLegend() {
    const candle = this.#pointed ?? this.#list[this.#list.length - 1];
    const parts = candle ? this.#partsOf(candle) : [];
    while (this.#legend.childElementCount < parts.length) {
      this.#legend.append(element("span", {}, document.createTextNode(""), element("b"), document.createTextNode("  ")));
    }
    while (this.#legend.childElementCount > parts.length) this.#legend.lastElementChild?.remove();
    parts.forEach(([name, value, kind = ""], index) => {
      const [label, number] = this.#legend.children[index].childNodes;
      setText(label, `${name} `);
      setText(number, value);
      if (number.className !== kind) number.className = kind;
    });
  }

  /** @param {Candle} candle @returns {string[][]} name, number, and what it means */
  #partsOf(candle) {
    const { price, quantity } = this.#scales;
    const [base] = currencies(this.#symbol);
    const change = subtract(candle.close, candle.open);
    const kind = change.units < 0n ? "sell" : "buy";
    const sign = change.units < 0n ? "" : "+";
    const percent = isZero(candle.open) ? "" : ` (${sign}${format(divide(multiply(change, HUNDRED), candle.open, 2))} %)`;
    return [
      [candleTime(candle.time, this.#isDay), candle.closed ? "" : "so far"],
      ["O", padded(candle.open, price)],
      ["H", padded(candle.high, price)],
      ["L", padded(candle.low, price)],
      ["C", padded(candle.close, price), kind],
      ["", `${sign}${padded(change, price)}${percent}`, kind],
      ["Vol", `${padded(candle.volume, quantity)} ${base}`],
    ];
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const scale = this.#chart.timeScale();
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -PAGE, PageDown: PAGE }[event.key];
    if (steps && event.shiftKey) scale.scrollToPosition(scale.scrollPosition() + steps * PAGE, false);
    else if (steps) this.#point((this.#pointedIndex() ?? this.#list.length - (steps < 0 ? 0 : 1)) + steps);
    else if (event.key === "+" || event.key === "=") this.#zoom(ZOOM);
    else if (event.key === "-") this.#zoom(1 / ZOOM);
    else if (event.key === "Home") this.#point(0);
    else if (event.key === "End") this.#point(this.#list.length - 1);
    else if (event.key === "Escape") this.#leave();
    else return;
    event.preventDefault();
  }

  /** @returns {number | null} */
  #pointedIndex() {
    const index = this.#pointed ? this.#list.findIndex(({ time }) => time === this.#pointed?.time) : -1;
    return index < 0 ? null : index;
  }

  /** Moves the crosshair to a candle, and that into sight. @param {number} wanted */
  #point(wanted) {
    const index = Math.max(0, Math.min(this.#list.length - 1, wanted));
    const candle = this.#list[index];
    if (!candle) return;
    const scale = this.#chart.timeScale();
    const range = scale.getVisibleLogicalRange();
    if (range && (index < range.from + 1 || index > range.to - 1)) {
      const width = range.to - range.from;
      const from = index < range.from + 1 ? index - 2 : index - width + 2;
      scale.setVisibleLogicalRange({ from, to: from + width });
    }
    this.#chart.setCrosshairPosition(toPixels(candle.close), candle.time / 1000, this.#candleSeries);
    this.#pointed = candle;
    this.#paintLegend();
    this.#spoken.textContent = this.#partsOf(candle).map(([name, value]) => `${name} ${value}`).join(", ");
  }

  #leave() {
    this.#chart.clearCrosshairPosition();
    this.#pointed = null;
    this.#spoken.textContent = "";
    this.#paintLegend();
  }

  /** @param {number} factor */
  #zoom(factor) {
    const scale = this.#chart.timeScale();
    const spacing = scale.options().barSpacing * factor;
    scale.applyOptions({ barSpacing: Math.max(BAR_SPACING.least, Math.min(60, spacing)) });
  }

  #readColours() {
    const style = getComputedStyle(document.documentElement);
    const read = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    this.#colours = { buyWash: read("--buy-volume"), sellWash: read("--sell-volume") };
    const [buy, sell, grid, strong] = ["--buy", "--sell", "--chart-grid", "--line-strong"].map(read);
    this.#chart.applyOptions({
      layout: { textColor: read("--muted"), fontFamily: getComputedStyle(document.body).fontFamily },
      grid: { vertLines: { color: grid }, horzLines: { color: grid } },
      crosshair: {
        vertLine: { color: strong, labelBackgroundColor: read("--control-fill") },
        horzLine: { color: strong, labelBackgroundColor: read("--control-fill") },
      },
    });
    this.#candleSeries.applyOptions({ upColor: buy, downColor: sell, wickUpColor: buy, wickDownColor: sell });
  }
}

/** @param {Candle} candle as floats, for the geometry alone */
const candlePoint = ({ time, open, high, low, close }) => ({
  time: time / 1000,
  open: toPixels(open),
  high: toPixels(high),
  low: toPixels(low),
  close: toPixels(close),
});
