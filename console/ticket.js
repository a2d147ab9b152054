/**
 * The order ticket. Hints are hints: the gateway alone decides, so whatever was typed is sent as it was typed, and
 * each refusal is shown beside the field it names.
 */

import { AttributeFields } from "./attributes.js";
import { affordable } from "./balances.js";
import { add, compare, divide, format, isMultipleOf, isZero, multiply, padded, parse, subtract } from "./client/decimal.js";
import { byId, currencies, element, setData, setText } from "./dom.js";
import { describe } from "./order.js";

/** @typedef {import("./client/decimal.js").Decimal} Decimal */
/** @typedef {import("./market-feed.js").Market} Market */
/** @typedef {import("./market-feed.js").Instrument} Instrument */
/** @typedef {import("./order.js").Order} Order */
/** @typedef {import("./own-orders.js").OwnOrders} OwnOrders */
/** @typedef {import("./order-api.js").Answer} Answer */

const FIELDS = ["side", "order_type", "time_in_force", "price", "quantity"];
const TIME_IN_FORCE_WORDS = {
  GTC: "Waits in the book until it is cancelled",
  IOC: "Fills what it can at once, drops the rest",
  FOK: "Fills whole and at once, or not at all",
};
const SHOWN_TIF = { limit: "GTC", market: "IOC" };

/** @param {string} text @returns {Decimal | null} */
export function readOrNull(text) {
  try {
    return parse(text);
  } catch {
    return null;
  }
}

/** @param {Decimal} price @param {Decimal} mark @param {Decimal} percent @returns {boolean} whether it is further away than that */
function isOutside(price, mark, percent) {
  const distance = subtract(price, mark);
  const away = distance.units < 0n ? subtract(mark, price) : distance;
  return compare(multiply(away, { units: 100n, scale: 0 }), multiply(mark, percent)) > 0;
}

/** As the gateway has it: the middle of the best prices, the last one of a one-sided book. @param {Market | null | undefined} market @returns {Decimal | null} */
function markOf(market) {
  const [bid, ask] = [market?.book.best("bid"), market?.book.best("ask")];
  if (bid && ask) return multiply(add(bid.price, ask.price), { units: 5n, scale: 1 });
  return market?.lastPrice ?? null;
}

/** What is wrong with a price as it is typed, as far as can be known here; empty for nothing. @param {string} typed @param {Instrument | undefined} instrument @param {Market | null | undefined} market */
export function priceProblem(typed, instrument, market) {
  const price = readOrNull(typed);
  if (!typed) return "";
  if (!price) return "Not a number: digits with a point, like 10.25";
  if (price.units <= 0n) return "Must be more than zero";
  const { tick, price_band_percent: band } = instrument ?? {};
  if (tick && !isMultipleOf(price, parse(tick))) return `Not a multiple of the tick ${tick}`;
  const mark = markOf(market);
  if (band && mark && isOutside(price, mark, parse(band))) return `More than ${band} % away from the mark, ${format(mark)}`;
  return "";
}

/** The same of a quantity; `price`: null for the mark. @param {string} typed @param {Decimal | null} price @param {Instrument | undefined} instrument @param {Market | null | undefined} market */
export function quantityProblem(typed, price, instrument, market) {
  const { lot, min_quantity: minimum, max_quantity: most, max_notional: mostWorth } = instrument ?? {};
  const quantity = readOrNull(typed);
  if (!typed) return "";
  if (!quantity) return "Not a number: digits with a point, like 0.5";
  if (quantity.units <= 0n) return "Must be more than zero";
  if (minimum && compare(quantity, parse(minimum)) < 0) return `Less than the minimum ${minimum}`;
  if (lot && !isMultipleOf(quantity, parse(lot))) return `Not a multiple of the lot ${lot}`;
  if (most && compare(quantity, parse(most)) > 0) return `More than the maximum ${most}`;
  const worth = price ?? markOf(market);
  if (worth && mostWorth && compare(multiply(quantity, worth), parse(mostWorth)) > 0) {
    return `Worth more than the maximum ${mostWorth} ${currencies(instrument?.symbol ?? "")[1]}`;
  }
  return "";
}

export class Ticket {
  #form = byId("ticket");
  #price = byId("price");
  #quantity = byId("quantity");
  #timeInForce = byId("time_in_force");
  #button = byId("place");
  #answer = byId("answer");
  #attributes = new AttributeFields(byId("attributes"));
  #orders;
  #onSignIn;
  #balances;
  #exchange;
  /** @type {Market | null} */
  #market = null;
  /** @type {Instrument | undefined} */
  #instrument;
  #scales = { price: 0, quantity: 0 };
  /** @type {{answer: Answer, order: Order | null} | null} the last answer, shown until the next one */
  #last = null;
  #sending = false;
  #maxOpenOrders = 0;
  /** What was typed as a price, kept while the order is a market order. */
  #limitPrice = "";

  /**
   * @param {OwnOrders} orders
   * @param {import("./balances.js").Balances} balances
   * @param {import("./exchange-status.js").ExchangeStatus} exchange
   * @param {() => void} onSignIn somebody without a token wants to order
   */
  constructor(orders, balances, exchange, onSignIn) {
    this.#orders = orders;
    this.#balances = balances;
    this.#exchange = exchange;
    this.#onSignIn = onSignIn;
    this.#form.addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#form.addEventListener("input", (/** @type {any} */ event) => {
      if (event.target.name === "order_type") this.#onType();
      this.#showError(event.target.name, "");
      this.paint();
    });
    for (const side of /** @type {const} */ (["bid", "ask"])) {
      byId(`take-${side}`).addEventListener("click", () => {
        const best = this.#market?.book.best(side);
        if (best) this.usePrice(padded(best.price, this.#scales.price));
      });
    }
    for (const button of byId("shares").children) {
      button.addEventListener("click", () => this.#useShare(BigInt(button.dataset.percent)));
    }
    this.#price.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) =>
      this.#onStep(event, this.#price, this.#instrument?.tick, this.#scales.price),
    );
    this.#quantity.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) =>
      this.#onStep(event, this.#quantity, this.#instrument?.lot, this.#scales.quantity),
    );
    orders.addEventListener("change", () => this.#paintAnswer());
    this.#onType();
  }

  /** What orders may carry here besides. @param {Record<string, import("./attributes.js").Declaration>} attributes */
  /** @param {number} maxOpenOrders how many a user may have open; 0 for any number */
  declare(attributes, maxOpenOrders) {
    this.#attributes.declare(attributes);
    this.#maxOpenOrders = maxOpenOrders;
    this.paint();
  }

  /** The names of all fields that the gateway may refuse. */
  get #fields() {
    return [...FIELDS, ...this.#attributes.names];
  }

  get #side() {
    return this.#form.elements.side.value;
  }

  get #isLimit() {
    return this.#form.elements.order_type.value === "limit";
  }

  /** @param {Market} market @param {Instrument | undefined} instrument @param {{price: number, quantity: number}} scales */
  show(market, instrument, scales) {
    const changed = this.#market?.symbol !== market.symbol;
    this.#market = market;
    this.#instrument = instrument;
    this.#scales = scales;
    if (!changed) return;
    // A price typed for another symbol must never be one keypress from being sent for this one.
    this.#price.value = this.#limitPrice = "";
    this.#quantity.value = "";
    for (const field of FIELDS) this.#showError(field, "");
    const [base, quote] = currencies(market.symbol);
    setText(byId("price-unit"), quote);
    setText(byId("quantity-unit"), base);
    setText(byId("ticket-symbol"), market.symbol);
    this.paint();
  }

  /** What the last answer is about. @returns {Order | null} */
  get order() {
    return this.#last?.order ?? null;
  }

  /** The last answer is not for whoever sits here now. */
  forgetAnswer() {
    this.#last = null;
    setData(this.#answer, "kind", "none");
    this.#answer.replaceChildren();
  }

  /** Takes a price from the ladder. @param {string} price */
  usePrice(price) {
    if (!this.#isLimit) {
      this.#form.elements.order_type.value = "limit";
      this.#onType();
    }
    this.#price.value = price;
    this.#showError("price", "");
    this.paint();
  }

  /** Everything that follows from the fields and the book. */
  paint() {
    if (!this.#market) return;
    const { book, symbol } = this.#market;
    const [base, quote] = currencies(symbol);
    const buys = this.#side === "bid";
    setText(this.#button, this.#sending ? "Sending…" : `${buys ? "Buy" : "Sell"} ${base}`);
    setData(this.#button, "side", this.#side);
    for (const side of /** @type {const} */ (["bid", "ask"])) byId(`take-${side}`).disabled = !book.best(side);

    const words = TIME_IN_FORCE_WORDS[/** @type {keyof typeof TIME_IN_FORCE_WORDS} */ (this.#timeInForce.value)];
    setText(byId("time_in_force-hint"), words);

    const price = this.#isLimit ? readOrNull(this.#price.value.trim()) : null;
    const quantity = readOrNull(this.#quantity.value.trim());
    this.#paintPriceHint(price);
    this.#paintQuantityHint(price);
    this.#paintLimitHint();
    const refusal = this.#exchange.refusal(symbol);
    byId("status-hint").hidden = refusal === "";
    setText(byId("status-hint"), refusal);
    this.#paintEstimate(price, quantity, quote);
    this.#paintShares();
  }

  /** What is given for the order: the quote currency by who buys, else the base. @returns {[string, Decimal | null]} */
  get #available() {
    const [base, quote] = currencies(this.#market?.symbol ?? "");
    const currency = this.#side === "bid" ? quote : base;
    return [currency, this.#balances.available(currency)];
  }

  #paintShares() {
    const [currency, available] = this.#available;
    byId("shares").hidden = byId("available").hidden = available === null;
    if (available === null) return;
    setText(byId("available"), `Available ${format(available)} ${currency}, fees not counted`);
    // What a market order will cost nobody knows before.
    const price = this.#isLimit ? readOrNull(this.#price.value.trim()) : null;
    const isKnown = this.#side === "ask" || (price !== null && price.units > 0n);
    for (const button of byId("shares").children) button.disabled = !isKnown;
  }

  /** @param {bigint} percent */
  #useShare(percent) {
    const [, available] = this.#available;
    const price = this.#side === "bid" ? readOrNull(this.#price.value.trim()) : null;
    if (!available || (this.#side === "bid" && !price)) return;
    const lot = this.#instrument?.lot ? parse(this.#instrument.lot) : { units: 1n, scale: this.#scales.quantity };
    this.#quantity.value = format(affordable(available, percent, price, lot));
    this.#showError("quantity", "");
    this.paint();
  }

  /** @param {Decimal | null} price */
  #paintPriceHint(price) {
    const tick = this.#instrument?.tick ? parse(this.#instrument.tick) : null;
    const hint = byId("price-hint");
    if (!this.#isLimit) return this.#hint(hint, "Takes the best prices there are");
    const problem = priceProblem(this.#price.value.trim(), this.#instrument, this.#market);
    if (problem) return this.#hint(hint, problem, true);
    const book = this.#market?.book;
    const opposite = book?.best(this.#side === "bid" ? "ask" : "bid");
    const direction = this.#side === "bid" ? 1 : -1;
    if (price && opposite && compare(price, opposite.price) * direction >= 0) {
      const name = direction === 1 ? "ask" : "bid";
      return this.#hint(hint, `Trades at once: best ${name} is ${padded(opposite.price, this.#scales.price)}`);
    }
    return this.#hint(hint, tick ? `Tick ${format(tick)}` : "");
  }

  #paintLimitHint() {
    const isFull = this.#maxOpenOrders > 0 && this.#orders.openCount >= this.#maxOpenOrders;
    const hint = byId("limit-hint");
    hint.hidden = !isFull;
    this.#hint(hint, isFull ? `You have the most open orders there may be, ${this.#maxOpenOrders}` : "", isFull);
  }

  /** @param {Decimal | null} price */
  #paintQuantityHint(price) {
    const { lot, min_quantity: minimum } = this.#instrument ?? {};
    const hint = byId("quantity-hint");
    const problem = quantityProblem(this.#quantity.value.trim(), price, this.#instrument, this.#market);
    if (problem) return this.#hint(hint, problem, true);
    return this.#hint(hint, [lot && `Lot ${lot}`, minimum && `minimum ${minimum}`].filter(Boolean).join(", "));
  }

  /** @param {any} node @param {string} text @param {boolean} [warns] */
  #hint(node, text, warns = false) {
    setText(node, text);
    setData(node, "kind", warns ? "warn" : "plain");
  }

  /** @param {Decimal | null} price @param {Decimal | null} quantity @param {string} quote */
  #paintEstimate(price, quantity, quote) {
    const label = byId("estimate-label");
    const output = byId("estimate");
    setText(label, this.#isLimit ? "Total at most" : "Estimate");
    if (this.#side === "ask" && this.#isLimit) setText(label, "Total at least");
    if (!quantity || quantity.units <= 0n || (this.#isLimit && !price)) return setText(output, "–");
    if (price) {
      const total = { units: price.units * quantity.units, scale: price.scale + quantity.scale };
      return setText(output, `${format(total)} ${quote}`);
    }
    const { quantity: had, cost } = /** @type {Market} */ (this.#market).book.cost(this.#side, quantity);
    if (isZero(had)) return setText(output, "nothing to trade with");
    const average = padded(divide(cost, had, this.#scales.price + 2), 0);
    const short = compare(had, quantity) < 0 ? `, only ${padded(had, this.#scales.quantity)} on show` : "";
    return setText(output, `${format(cost)} ${quote} (≈ ${average}${short})`);
  }

  #onType() {
    const limit = this.#isLimit;
    if (limit === this.#price.disabled) {
      if (!limit) this.#limitPrice = this.#price.value;
      this.#price.value = limit ? this.#limitPrice : "";
    }
    this.#price.disabled = !limit;
    this.#price.placeholder = limit ? "" : "market price";
    for (const option of this.#timeInForce.options) option.disabled = !limit && option.value === "GTC";
    this.#timeInForce.value = SHOWN_TIF[limit ? "limit" : "market"];
  }

  /** Arrow keys step by tick or lot, exactly. */
  /** @param {KeyboardEvent} event @param {any} input @param {string | null | undefined} step @param {number} scale */
  #onStep(event, input, step, scale) {
    const sign = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const value = readOrNull(input.value.trim() || "0");
    if (!sign || !value) return;
    event.preventDefault();
    const size = step ? parse(step) : { units: 1n, scale };
    const next = sign > 0 ? add(value, size) : subtract(value, size);
    input.value = next.units < 0n ? input.value : padded(next, scale);
    this.#showError(input.name, "");
    this.paint();
  }

  async #submit() {
    if (this.#sending || !this.#market) return;
    const symbol = this.#market.symbol;
    const refusal = this.#exchange.refusal(symbol);
    if (refusal) return this.#refuse(refusal);
    /** @type {any} */
    const terms = {
      symbol,
      side: this.#side,
      order_type: this.#form.elements.order_type.value,
      quantity: this.#quantity.value.trim(),
      time_in_force: this.#timeInForce.value,
    };
    if (this.#isLimit) terms.price = this.#price.value.trim();
    Object.assign(terms, this.#attributes.terms());
    for (const field of this.#fields) this.#showError(field, "");
    this.#setSending(true);
    const { answer, order } = await this.#orders.place(terms);
    this.#setSending(false);
    this.#last = { answer, order };
    for (const { field, message } of answer.errors) this.#showError(field, message);
    const first = this.#fields.find((name) => answer.errors.some(({ field }) => field === name));
    if (first) this.#form.querySelector(`[name="${first}"]`).focus();
    this.#paintAnswer();
  }

  /** Nothing is sent. @param {string} reason */
  #refuse(reason) {
    const answer = { status: 0, headline: "Not sent", detail: reason, errors: [], orderId: null, requestId: null, body: null };
    this.#last = { answer: { ...answer, outcome: /** @type {const} */ ("not_sent") }, order: null };
    this.#paintAnswer();
  }

  /** @param {boolean} sending */
  #setSending(sending) {
    this.#sending = sending;
    // Not `disabled`: the button would lose the focus of whoever pressed it.
    this.#button.setAttribute("aria-disabled", String(sending));
    this.paint();
  }

  /** @param {string} field @param {string} message @returns {boolean} whether there is such a field here */
  #showError(field, message) {
    if (this.#attributes.names.includes(field)) {
      this.#attributes.showError(field, message);
      return true;
    }
    if (!FIELDS.includes(field)) return false;
    setText(byId(`${field}-error`), message);
    for (const input of this.#form.querySelectorAll(`[name="${field}"]`)) {
      if (message) input.setAttribute("aria-invalid", "true");
      else input.removeAttribute("aria-invalid");
    }
    return true;
  }

  #paintAnswer() {
    if (!this.#last) return;
    const { answer, order } = this.#last;
    // What was unknown may have come out since.
    const isKnown = order !== null && order.status !== "unknown";
    setData(this.#answer, "kind", isKnown ? "accepted" : answer.outcome);
    const lines = [element("strong", { text: isKnown ? describe(order) : answer.headline })];
    const elsewhere = answer.errors.filter(({ field }) => !this.#fields.includes(field));
    const beside = answer.errors.length > elsewhere.length;
    const detail = beside ? "See what is marked above." : answer.detail;
    if (detail && !elsewhere.length && !isKnown) lines.push(element("span", { text: detail }));
    for (const { field, message } of elsewhere) lines.push(element("span", { text: `${field}: ${message}` }));
    const orderId = answer.orderId ?? order?.orderId;
    if (orderId) lines.push(element("div", {}, element("code", { text: orderId })));
    else if (answer.requestId) lines.push(element("div", {}, element("code", { text: `request ${answer.requestId}` })));
    if (answer.status === 401) lines.push(this.#signInButton());
    // Said again, a live region would be read aloud again.
    if (lines.map((line) => line.textContent).join("") === this.#answer.textContent) return;
    this.#answer.replaceChildren(...lines);
  }

  #signInButton() {
    const button = element("button", { className: "link", text: "Sign in", attributes: { type: "button" } });
    button.addEventListener("click", () => this.#onSignIn());
    return element("div", {}, button);
  }
}
