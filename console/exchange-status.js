/** What the operators have closed, as the channel `status` tells it: for the banner, and for the ticket before it sends. */

import { clockText } from "./dom.js";

/** @typedef {"online" | "cancel_only" | "halted" | "maintenance"} State */
/**
 * @typedef {object} Told
 * @property {State} state of every symbol that `symbols` does not name
 * @property {Record<string, State>} symbols
 * @property {Record<string, string>} [reasons]
 * @property {string} [message]
 * @property {number} [from_ms]
 * @property {number} [until_ms]
 * @property {{state: State, symbols?: string[]}} [announced]
 */

/** @type {Record<State, string>} */
const WORDS = {
  online: "Open",
  cancel_only: "Only cancels are taken",
  halted: "Trading is halted",
  maintenance: "Closed for maintenance",
};
const MOST_NAMED = 5;
/** Today's clock is enough for what is so near. */
const NEAR_MS = 12 * 3_600_000;

/** @param {string[]} symbols */
function named(symbols) {
  const more = symbols.length - MOST_NAMED;
  return symbols.slice(0, MOST_NAMED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** @param {number} moment */
function when(moment) {
  return Math.abs(moment - Date.now()) < NEAR_MS ? clockText(moment) : new Date(moment).toLocaleString();
}

/** Says "change" once what is told is another. */
export class ExchangeStatus extends EventTarget {
  /** @type {Told} */
  #told = { state: "online", symbols: {} };
  /** @type {number | null} by `performance.now()` */
  #closesAt = null;

  /** @param {import("./client/gateway-client.js").GatewayClient} client */
  constructor(client) {
    super();
    client
      .subscribe(["status"], (notification) => {
        if (notification.closing_in_ms === undefined) this.#told = notification;
        else this.#closesAt = performance.now() + Number(notification.closing_in_ms);
        this.dispatchEvent(new Event("change"));
      })
      .catch(() => {}); // a gateway that has no such channel closes nothing
    client.on("state", ({ state }) => {
      if (state !== "live") this.#closesAt = null;
    });
  }

  /** In how many whole seconds the gateway ends this connection, null if it has not said so. @returns {number | null} */
  get closesInSeconds() {
    return this.#closesAt === null ? null : Math.max(0, Math.ceil((this.#closesAt - performance.now()) / 1000));
  }

  /** Why no order of a symbol is taken now, empty where one is. @param {string} symbol @returns {string} */
  refusal(symbol) {
    const { state, symbols, reasons, message } = this.#told;
    const own = symbols[symbol];
    if ((own ?? state) === "online") return "";
    const reason = own === "halted" ? reasons?.[symbol] : message;
    return `${symbol}: ${WORDS[own ?? state].toLowerCase()}${reason ? ` (${reason})` : ""}. Open orders can be cancelled.`;
  }

  /** For the banner, empty where there is nothing to say. @returns {string} */
  get text() {
    const { state, symbols, message, from_ms: from, until_ms: until, announced } = this.#told;
    const parts = [];
    if (state !== "online") parts.push(WORDS[state]);
    for (const each of /** @type {State[]} */ (["cancel_only", "halted", "maintenance"])) {
      const those = Object.keys(symbols).filter((symbol) => symbols[symbol] === each);
      if (those.length) parts.push(`${WORDS[each]}: ${named(those)}`);
    }
    if (message) parts.push(message);
    const span = [announced && from && `from ${when(Number(from))}`, until && `until ${when(Number(until))}`].filter(Boolean).join(" ");
    if (announced) {
      parts.push(`${WORDS[announced.state]}${announced.symbols ? ` (${named(announced.symbols)})` : ""} ${span}`);
    } else if (span) parts.push(span);
    return parts.join(" · ");
  }
}
