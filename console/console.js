/** The page: connects who is signed in, the feed, the views and the ticket. Every view draws from here, at most once a frame. */

import { AccountTabs } from "./account-tabs.js";
import { ChartPanel } from "./chart-panel.js";
import { padded } from "./client/decimal.js";
import { byId, clockText, element, Painter, setData, setText } from "./dom.js";
import { ExchangeStatus } from "./exchange-status.js";
import { GatewayClient } from "./client/gateway-client.js";
import { Identity } from "./identity.js";
import { Ladder } from "./ladder.js";
import { changeText, directionOf, displayScales, MarketFeed } from "./market-feed.js";
import { describe, describeFill, isOpen, nameOfOrder } from "./order.js";
import { OrdersTable } from "./orders-table.js";
import { Overview } from "./overview.js";
import { OwnOrders } from "./own-orders.js";
import { SignIn } from "./sign-in.js";
import { Tape } from "./tape.js";
import { Ticket } from "./ticket.js";
import { Toasts } from "./toasts.js";

/** Beyond this the strip of symbols becomes a list to choose from. */
const MOST_TABS = 6;
const TICK_MS = 250;
/** The book comes twice as often: nobody reads digits faster than this. */
const PAINT_LEAST_MS = 200;
const ORDERS_LEAST_MS = 200;
const TITLE_EVERY_TICKS = 4;
/** Longer than the heartbeats of a quiet book are apart. */
const QUIET_AFTER_MS = 7_000;
const SILENT_AFTER_MS = 12_000;
/** What somebody who cannot see the list is told of at once. */
const NEWSWORTHY = ["partially_filled", "filled", "cancelled", "rejected"];
/** How long something that is over is still told of. */
const NOTICE_MS = { conflated: 10_000, recovered: 10_000, lost: 60_000, unchained: Infinity };
const BOOK_NOTICES = { conflated: "Skipped ahead to keep up" };
const TRADES_NOTICES = { recovered: "Back: no trade was missed", lost: "Some trades were missed" };
const OPTIONAL = ["account.trades", "account.balances", "status"];
const STATE_WORDS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  closed: "Closed",
};

const socketUrl = new URL("ws", location.href);
socketUrl.protocol = location.protocol === "https:" ? "wss:" : "ws:";
socketUrl.hash = "";

const client = new GatewayClient(socketUrl);
const feed = new MarketFeed(client);
const exchange = new ExchangeStatus(client);
const identity = new Identity(client);
const signIn = new SignIn(identity);
const orders = new OwnOrders(identity, () => followed);
const account = new AccountTabs(client, identity);
const ticket = new Ticket(orders, account.balances, exchange, () => signIn.open());
const table = new OrdersTable(orders, identity, feed);
const toasts = new Toasts(byId("toasts"));
const tape = new Tape(byId("tape"));
const ladder = new Ladder(byId("ladder"), {
  onPick: (price) => ticket.usePrice(price),
  onChange: () => painter.request(),
});

/** The part behind `#` is never sent to the server; the symbol there survives a reload, a token does not. */
const { token: firstToken, fragment } = takeTokenOut();
let symbol = fragment.get("symbol") ?? "";
/** @type {{reason: string, retryAt: number | null, lostAt: number | null}} */
const connection = { reason: "", retryAt: null, lostAt: null };
/** Whether the fills of our orders come by, once that is settled. */
let followed = Promise.resolve(false);
let ordersVersion = 0;
/** @type {string | null} whose orders are on show */
let shownTo = null;
let symbolsShown = "";
let ticks = 0;
let rate = { at: performance.now(), count: 0, text: "" };

const market = () => feed.market(symbol);
const scales = () => displayScales(market(), feed.instruments.get(symbol));
const isOwn = (/** @type {import("./market-feed.js").Trade} */ trade) => orders.isOwn(trade);

const charts = new ChartPanel(client, () => ({ market: market(), scales: scales() }), isOwn);
const overview = new Overview(
  feed,
  (chosen) => show(chosen),
  () => client.state === "live",
);

const painter = new Painter(() => {
  paintSymbolPrices();
  if (!symbol) return;
  const shown = market();
  const digits = scales();
  ladder.paint(shown, digits, {
    ask: orders.restingPrices(symbol, "ask"),
    bid: orders.restingPrices(symbol, "bid"),
  });
  tape.paint(shown, digits, isOwn, ordersVersion);
  ticket.show(shown, feed.instruments.get(symbol), digits);
  ticket.paint();
  paintQuote(shown, digits);
  paintNotes(shown);
}, PAINT_LEAST_MS);

const ordersPainter = new Painter(() => {
  table.paint();
  need();
}, ORDERS_LEAST_MS);

/** @param {import("./market-feed.js").Market} shown @param {{price: number}} digits */
function paintQuote(shown, digits) {
  const { lastPrice, direction, book } = shown;
  setText(byId("chart-title"), shown.symbol);
  setText(byId("last-price"), lastPrice ? padded(lastPrice, digits.price) : "–");
  setText(byId("last-arrow"), { up: "▲", down: "▼", level: "" }[direction]);
  setText(byId("last-direction"), { up: "rising", down: "falling", level: "" }[direction]);
  setData(byId("last"), "direction", direction);
  for (const side of /** @type {const} */ (["bid", "ask"])) {
    const best = book.best(side);
    setText(byId(`best-${side}`), best ? padded(best.price, digits.price) : "–");
  }
  const { day } = shown;
  setText(byId("day-high"), day ? padded(day.high, digits.price) : "–");
  setText(byId("day-low"), day ? padded(day.low, digits.price) : "–");
  setText(byId("day-volume"), day ? padded(day.volume, digits.quantity) : "–");
  setText(byId("day-change"), day ? changeText(day, digits.price) : "–");
  setData(byId("day-change"), "direction", day ? directionOf(day) : "level");
  setData(byId("day-figures"), "stale", String(shown.tickerStale || client.state !== "live"));
}

/** What has to be known of the numbers on show. @param {import("./market-feed.js").Market} shown */
function paintNotes(shown) {
  const { book } = shown;
  let warning = "";
  if (client.state !== "live") warning = book.known ? "Frozen" : "";
  else if (shown.unread) warning = "Not read by the gateway now";
  else if (!book.known) warning = "Waiting for a snapshot";
  else if (shown.bookNotice?.kind === "unchained") warning = "A change did not fit, asking for a fresh book";
  else if (book.stale) warning = "Stale, waiting for a snapshot";
  else if (performance.now() - shown.bookHeardAt > SILENT_AFTER_MS) warning = "Silent, perhaps out of date";
  setText(byId("book-note"), warning || noticeText(shown.bookNotice, BOOK_NOTICES));
  setData(byId("book-note"), "kind", warning ? "warn" : "plain");
  setData(/** @type {HTMLElement} */ (document.querySelector(".book-panel")), "stale", String(warning !== ""));
  setText(byId("tape-note"), noticeText(shown.tradesNotice, TRADES_NOTICES));
  setData(byId("tape-note"), "kind", shown.tradesNotice?.kind === "lost" ? "warn" : "plain");
}

/** @param {import("./market-feed.js").Notice | null} notice @param {Record<string, string>} words */
function noticeText(notice, words) {
  return notice && performance.now() - notice.at < NOTICE_MS[notice.kind] ? (words[notice.kind] ?? "") : "";
}

function paintSymbolPrices() {
  for (const node of document.querySelectorAll(".symbol-tab-price")) {
    const output = /** @type {HTMLElement} */ (node);
    const shown = feed.markets.get(output.dataset.symbol ?? "");
    if (!shown) continue;
    setData(output, "stale", String(shown.tickerStale || client.state !== "live"));
    if (!shown.lastPrice) continue;
    setText(output, padded(shown.lastPrice, displayScales(shown, feed.instruments.get(shown.symbol)).price));
    setData(output, "direction", shown.direction);
  }
}

function paintSymbols() {
  const { symbols } = feed;
  // A symbol from the address may still appear where the gateway learns its symbols from the stream.
  const mayAppear = symbol && feed.instruments.size === 0;
  if (symbols.length && !symbols.includes(symbol) && !mayAppear) choose(symbols[0]);
  const listed = symbol && !symbols.includes(symbol) ? [symbol, ...symbols] : symbols;
  if (listed.join(" ") !== symbolsShown) {
    symbolsShown = listed.join(" ");
    byId("symbols").replaceChildren(listed.length > MOST_TABS ? symbolSelect(listed) : symbolTabs(listed));
  }
  painter.request();
}

/** @param {string[]} listed */
function symbolTabs(listed) {
  const tabs = listed.map((each) => {
    const radio = element("input", { attributes: { type: "radio", name: "symbol", value: each } });
    radio.checked = each === symbol;
    radio.addEventListener("change", () => choose(each));
    return element(
      "label",
      { className: "symbol-tab" },
      radio,
      element("span", { className: "symbol-tab-name", text: each }),
      element("span", { className: "symbol-tab-price", text: "–", attributes: { "data-symbol": each, "aria-hidden": "true" } }),
    );
  });
  return element("div", { className: "symbol-tabs", attributes: { role: "radiogroup", "aria-label": "Symbol" } }, ...tabs);
}

/** @param {string[]} listed */
function symbolSelect(listed) {
  const select = element("select", { className: "symbol-select", attributes: { "aria-label": "Symbol" } });
  for (const each of listed) select.append(new Option(each, each, each === symbol, each === symbol));
  select.addEventListener("change", () => choose(select.value));
  return select;
}

/** @param {string} chosen */
function choose(chosen) {
  symbol = chosen;
  fragment.set("symbol", chosen);
  writeFragment(fragment);
  need();
  charts.show(chosen);
  overview.show(chosen);
  painter.request();
  charts.request();
}

/** Chooses one where the strip of symbols does not know of it yet. @param {string} chosen */
function show(chosen) {
  choose(chosen);
  symbolsShown = "";
  paintSymbols();
}

/** @param {URLSearchParams} given */
function writeFragment(given) {
  // A slash needs no escape in a fragment, and reads better without.
  const text = given.toString().replaceAll("%2F", "/");
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

/** A token must not stay where it can be read over a shoulder, bookmarked or shared. */
function takeTokenOut() {
  const given = new URLSearchParams(location.hash.slice(1));
  const token = given.get("token");
  given.delete("token");
  if (token !== null) writeFragment(given);
  return { token, fragment: given };
}

function need() {
  if (!symbol) return;
  // A user may have orders placed elsewhere, and those may be filled before anything here has heard of them.
  const watched = identity.userId !== null && symbol ? [symbol] : [];
  followed = feed.need(symbol, [...new Set([...watched, ...orders.symbolsInPlay()])]);
}

function onIdentity() {
  const { userId } = identity;
  if (userId !== shownTo) {
    // What belongs to a user is shown to nobody else.
    if (shownTo !== null) {
      ticket.forgetAnswer();
      toasts.forget();
      setText(byId("orders-news"), "");
      setText(byId("orders-answer"), "");
    }
    shownTo = userId;
    orders.keepOnlyOf(userId);
    need();
  }
  ordersPainter.request();
}

/** @param {import("./client/gateway-client.js").StateChange} change */
function onState({ state, previous, reason, retryInMs }) {
  connection.reason = reason;
  connection.retryAt = state === "reconnecting" ? performance.now() + (retryInMs ?? 0) : null;
  if (previous === "live" && state !== "live") connection.lostAt = Date.now();
  if (state === "live") connection.lostAt = null;
  setData(document.body, "feed", state);
  paintConnection();
  paintStatus();
  painter.request();
  overview.request();
}

function paintConnection() {
  const { state } = client;
  setText(byId("connection-text"), STATE_WORDS[state]);
  byId("reconnect").hidden = state !== "reconnecting";
  let detail = "";
  if (state === "live") {
    const quiet = client.silentForMs;
    detail = quiet > QUIET_AFTER_MS ? `quiet for ${Math.floor(quiet / 1000)} s` : rate.text;
  } else if (state === "reconnecting") {
    const left = Math.ceil(((connection.retryAt ?? 0) - performance.now()) / 1000);
    detail = left > 0 ? `in ${left} s` : "now";
  }
  setText(byId("connection-detail"), detail);
  const banner = byId("banner");
  const frozen = connection.lostAt ? ` What is shown has not changed since ${clockText(connection.lostAt)}.` : "";
  banner.hidden = state !== "reconnecting";
  const reason = connection.reason ? `: ${connection.reason}.` : ".";
  if (state === "reconnecting") setText(banner, `Not live${reason}${frozen}`);
}

function paintStatus() {
  const banner = byId("status-banner");
  banner.hidden = exchange.text === "";
  setText(banner, exchange.text);
  const seconds = exchange.closesInSeconds;
  const closing = byId("closing-banner");
  closing.hidden = seconds === null;
  setText(closing, seconds === null ? "" : `This connection ends in ${seconds} s; the page connects again by itself.`);
}

/** What moves with time alone: countdowns, the rate, the chart's right edge. */
function tick() {
  if (document.hidden) return;
  ticks += 1;
  const now = performance.now();
  if (now - rate.at >= 1000) {
    const perSecond = Math.round(((feed.updateCount - rate.count) * 1000) / (now - rate.at));
    rate = { at: now, count: feed.updateCount, text: `${perSecond} updates/s` };
  }
  paintConnection();
  paintStatus();
  if (symbol) paintNotes(market());
  charts.paintNote();
  charts.request();
  if (ticks % TITLE_EVERY_TICKS === 0) {
    orders.forgetEnded();
    ordersPainter.request();
    const lastPrice = feed.markets.get(symbol)?.lastPrice;
    const title = lastPrice ? `${padded(lastPrice, scales().price)} ${symbol}` : "Exchange gateway";
    if (document.title !== title) document.title = title;
  }
}

feed.addEventListener("instruments", paintSymbols);
feed.addEventListener("instruments", () => ticket.declare(feed.attributes, feed.maxOpenOrders));
feed.addEventListener("change", (event) => {
  painter.request();
  if (/** @type {CustomEvent} */ (event).detail.symbol === symbol) charts.request();
});
feed.addEventListener("fill", (event) => orders.onFill(/** @type {CustomEvent} */ (event).detail));
feed.addEventListener("missed", (event) => orders.onGap(/** @type {CustomEvent} */ (event).detail.symbol));
orders.addEventListener("change", () => {
  ordersVersion += 1;
  ordersPainter.request();
  painter.request();
  charts.request();
});
orders.addEventListener("placing", need);
orders.addEventListener("news", (event) => {
  const order = /** @type {CustomEvent} */ (event).detail;
  if (!isOpen(order)) account.onEnded();
  // Of fills each is told by itself.
  if (order.status === "cancelled") toasts.say(`Cancelled: ${nameOfOrder(order)}`);
  if (order.status === "rejected") toasts.say(`${describe(order)}: ${nameOfOrder(order)}`, "bad");
  // Of the last one placed here the ticket tells.
  if (order === ticket.order || !NEWSWORTHY.includes(order.status)) return;
  setText(byId("orders-news"), `${describe(order)} (${nameOfOrder(order)})`);
});
orders.addEventListener("answer", (event) => {
  const { asked, answer } = /** @type {CustomEvent} */ (event).detail;
  toasts.say(`${answer.headline}: ${asked}`, answer.outcome === "accepted" ? "plain" : "bad");
});
orders.addEventListener("fill", (event) => {
  const { order, fill } = /** @type {CustomEvent} */ (event).detail;
  toasts.say(describeFill(order, fill), "good");
});
account.addEventListener("balances", () => ticket.paint());
exchange.addEventListener("change", () => {
  paintStatus();
  ticket.paint();
});
identity.addEventListener("change", onIdentity);
// Wanted from the beginning on: the client asks for it whenever somebody is signed in.
client
  .subscribe(["account.orders"], (notification) => {
    if (identity.userId !== null) orders.onAccount(notification, identity.userId);
  })
  .catch(() => {}); // told of by "refused"
client.on("state", onState);
client.on("refused", ({ channel, error }) => {
  // Not every gateway has them all.
  if (!OPTIONAL.includes(channel)) console.warn(`the gateway refuses ${channel}: ${error.message}`);
});
client.on("fault", (error) => console.warn("unreadable message", error));
byId("reconnect").addEventListener("click", () => client.reconnectNow());
addEventListener("online", () => client.reconnectNow());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  client.reconnectNow();
  tick();
});
addEventListener("hashchange", () => {
  const { token, fragment: given } = takeTokenOut();
  const wanted = given.get("symbol");
  if (token !== null) {
    writeFragment(fragment);
    // Whoever opens an address with a token wants to be who is in it.
    if (identity.userId !== null) identity.signOut();
    identity.signIn(token);
  }
  if (wanted && wanted !== symbol) show(wanted);
});

setInterval(tick, TICK_MS);
if (symbol) choose(symbol);
if (firstToken !== null) identity.signIn(firstToken);
feed.start();
