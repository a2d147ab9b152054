/** What the user who is signed in has, by currency: `account.balances`, where the gateway offers it. */

import { add, parse } from "./client/decimal.js";

/** @typedef {import("./client/decimal.js").Decimal} Decimal */
/** @typedef {{currency: string, available: Decimal, reserved: Decimal, total: Decimal}} Balance */

export class Balances {
  /** @type {Map<string, Balance>} */
  #all = new Map();

  /** @returns {Balance[]} by currency */
  get list() {
    return [...this.#all.values()].sort((a, b) => (a.currency < b.currency ? -1 : 1));
  }

  /** @param {any} notification of `account.balances` */
  apply({ balances, snapshot }) {
    if (snapshot) this.#all.clear();
    for (const [currency, { available, reserved }] of Object.entries(balances)) {
      const [free, held] = [parse(available), parse(reserved)];
      this.#all.set(currency, { currency, available: free, reserved: held, total: add(free, held) });
    }
  }

  /** They are somebody else's, or nobody tells of them any more. */
  forget() {
    this.#all.clear();
  }

  /** @param {string} currency @returns {Decimal | null} null where it is not known */
  available(currency) {
    return this.#all.get(currency)?.available ?? null;
  }
}

/**
 * @param {Decimal} available
 * @param {bigint} percent of it
 * @param {Decimal | null} price that each piece costs, more than zero; null where what is available is what is sold
 * @param {Decimal} lot
 * @returns {Decimal} the largest number of whole lots that it is enough for
 */
export function affordable(available, percent, price, lot) {
  // available * percent / 100 / price / lot, as one fraction of whole numbers, rounded down.
  const cost = price ?? { units: 1n, scale: 0 };
  const top = available.units * percent * 10n ** BigInt(cost.scale + lot.scale);
  const bottom = 100n * cost.units * lot.units * 10n ** BigInt(available.scale);
  return { units: top > 0n ? (top / bottom) * lot.units : 0n, scale: lot.scale };
}
