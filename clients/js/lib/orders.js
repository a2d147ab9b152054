/**
 * Orders, and the truth about them.
 *
 * A command that was certainly not done (10003, 10004, no connection) is sent again, after the time that the gateway names.
 * One of which that is not known (10005, no answer, a connection that ended, a fault of the gateway's own) is sent again as it
 * was, on whichever connection there is: an order under its client_order_id is one order, and a cancel, an amend or a timer that comes twice
 * changes nothing more (docs/contract.md#retries). What is still not known when the time is over is told as `OutcomeUnknown`,
 * and so is whatever comes after an attempt of unknown outcome, for that one may be there; but for what became of a closed order.
 */

import {
  CancelFailed,
  ConnectionLost,
  GatewayError,
  GatewayFault,
  NotAuthorised,
  ofAnswer,
  OutcomeUnknown,
  TooManyRequests,
  typed,
  Unavailable,
} from "./errors.js";
import { newOrderId } from "./gateway-protocol.js";
import { decimalText } from "./values.js";

const REPEATED = [OutcomeUnknown, TooManyRequests, Unavailable, ConnectionLost];
const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 2_000;

/**
 * @typedef {object} Owner
 * @property {import("./gateway-client.js").GatewayClient} client
 * @property {import("./gateway-protocol.js").Clock} clock
 * @property {() => number} random
 * @property {boolean} canRenew
 * @property {(ms: number) => Promise<void>} ready rejects where nothing can be sent
 * @property {(ms: number) => Promise<void>} pause
 * @property {() => void} renew
 * @property {() => boolean} isClosed
 */

/** @param {object} members @returns {Record<string, any>} those that are given, exact decimals as text */
const given = (members) =>
  Object.fromEntries(
    Object.entries(members)
      .filter(([, value]) => value !== undefined && value !== null)
      .map(([name, value]) => [name, isNumeric(value) ? decimalText(value) : value]),
  );

/** @param {unknown} value one that JSON would not carry as it was meant */
const isNumeric = (value) =>
  typeof value === "bigint" ||
  (typeof value === "number" && !Number.isSafeInteger(value)) ||
  (typeof value === "object" && value !== null && "units" in value);

/** @param {any} terms */
const termsOf = ({ price, quantity, ...more }) =>
  given({
    ...more,
    price: price === undefined || price === null ? undefined : decimalText(price),
    quantity: quantity === undefined || quantity === null ? undefined : decimalText(quantity),
  });

/** What a program asks for, as it is sent. @type {Record<string, (terms: any) => Record<string, any>>} */
const PARAMS = {
  place: (order) =>
    termsOf({
      order_type: order.price === undefined || order.price === null ? "market" : "limit",
      ...order,
      client_order_id: order.client_order_id ?? newOrderId(),
    }),
  cancel: given,
  amend: termsOf,
};

/** Commands over a connection; each has a time, repeats included. */
export class Orders {
  #owner;
  #timeoutMs;

  /** @param {Owner} owner @param {number} timeoutMs */
  constructor(owner, timeoutMs) {
    this.#owner = owner;
    this.#timeoutMs = timeoutMs;
  }

  /** @param {any} order @param {number} [withinMs] */
  async place(order, withinMs) {
    return ackOf(await this.#command("private/place_order", PARAMS.place(order), withinMs));
  }

  /** @param {any} order @param {number} [withinMs] */
  async validate(order, withinMs) {
    await this.#command("private/place_order", { ...PARAMS.place(order), validate_only: true }, withinMs);
  }

  /** @param {any} which @param {number} [withinMs] */
  async cancel(which, withinMs) {
    return ackOf(await this.#command("private/cancel_order", PARAMS.cancel(which), withinMs));
  }

  /** @param {any} change @param {number} [withinMs] */
  async amend(change, withinMs) {
    return ackOf(await this.#command("private/amend_order", PARAMS.amend(change), withinMs));
  }

  /** @param {Record<string, any>[]} commands each `{place}`, `{cancel}` or `{amend}` @param {number} [withinMs] */
  async batch(commands, withinMs) {
    const requests = commands.map((command) => {
      const [[method, terms], ...more] = Object.entries(command);
      if (more.length || !Object.hasOwn(PARAMS, method)) throw new TypeError("a command is {place}, {cancel} or {amend}");
      return { method, params: PARAMS[method](terms) };
    });
    const send = async (/** @type {number[]} */ todo, /** @type {number} */ timeoutMs) => {
      const params = { requests: todo.map((at) => requests[at]) };
      const { results } = await this.#owner.client.request("private/batch", params, { timeoutMs });
      return results.map((/** @type {any} */ one) => (one.error ? ofAnswer(one.error) : one.result));
    };
    const outcomes = await this.#settle(send, requests.map(({ params }) => params), withinMs);
    return outcomes.map((one) => (one instanceof GatewayError ? one : ackOf(one)));
  }

  /** @param {string} [symbol] @param {number} [withinMs] @returns {Promise<string[]>} */
  async cancelAll(symbol, withinMs) {
    return (await this.#command("private/cancel_all", given({ symbol }), withinMs)).order_ids;
  }

  /** @param {number} seconds @param {number} [withinMs] @returns {Promise<number | null>} */
  async cancelAllAfter(seconds, withinMs) {
    return (await this.#command("private/cancel_all_after", { timeout_seconds: seconds }, withinMs)).trigger_time_ms;
  }

  /** @param {string} method @param {Record<string, any>} params @param {number} [withinMs] */
  async #command(method, params, withinMs) {
    const send = async (/** @type {number[]} */ _todo, /** @type {number} */ timeoutMs) => [
      await this.#owner.client.request(method, params, { timeoutMs }),
    ];
    const [outcome] = await this.#settle(send, [params], withinMs);
    if (outcome instanceof GatewayError) throw outcome;
    return outcome;
  }

  /**
   * @param {(todo: number[], timeoutMs: number) => Promise<any[]>} send
   * @param {Record<string, any>[]} commands
   * @param {number} [withinMs]
   * @returns {Promise<any[]>} results, or the truth about what has none; what is sent again goes together, in its order
   */
  async #settle(send, commands, withinMs = this.#timeoutMs) {
    const { clock, pause, random, renew, canRenew, isClosed } = this.#owner;
    const deadline = clock.now() + withinMs;
    const outcomes = commands.map(() => /** @type {any} */ (null));
    /** @type {Map<number, OutcomeUnknown>} */
    const unknown = new Map();
    let todo = [...commands.keys()];
    let step = FIRST_PAUSE_MS;
    let renewals = canRenew ? 2 : 0;
    for (;;) {
      const told = await this.#attempt(send, todo, deadline);
      const again = [];
      let wait = 0;
      let isRefused = false;
      for (const [index, at] of todo.entries()) {
        const one = told[index] instanceof GatewayFault ? unknownBy(told[index]) : told[index];
        if (one instanceof OutcomeUnknown) {
          one.clientOrderId = commands[at].client_order_id ?? null;
          unknown.set(at, one);
        }
        outcomes[at] = truthOf(one, unknown.get(at));
        const mayRenew = one instanceof NotAuthorised && renewals > 0;
        isRefused ||= mayRenew;
        if (!mayRenew && !REPEATED.some((kind) => one instanceof kind)) continue;
        again.push(at);
        wait = Math.max(wait, one.retryAfterMs ?? 0);
      }
      if (isRefused) {
        renewals -= 1;
        renew();
      }
      wait += step * (0.5 + random() / 2);
      step = Math.min(LONGEST_PAUSE_MS, step * 2);
      todo = again;
      if (!todo.length || isClosed() || clock.now() + wait >= deadline) return outcomes;
      await pause(wait);
    }
  }

  /** @param {(todo: number[], timeoutMs: number) => Promise<any[]>} send @param {number[]} todo @param {number} deadline */
  async #attempt(send, todo, deadline) {
    const { clock, ready } = this.#owner;
    const left = () => Math.max(1, deadline - clock.now());
    try {
      await ready(left());
      return await send(todo, left());
    } catch (error) {
      const met = typed(error);
      // Each command has its own, for it says whose it is.
      return todo.map(() => (met instanceof OutcomeUnknown ? new OutcomeUnknown(met.code, met.message, met.data) : met));
    }
  }
}

/**
 * @param {any} outcome
 * @param {OutcomeUnknown | undefined} unknown an earlier attempt, or this one
 * @returns {any} what is told of a command of which an attempt was of unknown outcome
 */
function truthOf(outcome, unknown) {
  const isFailure = outcome instanceof GatewayError && !(outcome instanceof CancelFailed);
  if (!unknown || outcome === unknown || !isFailure) return outcome;
  unknown.cause = outcome;
  return unknown;
}

/** Of a fault nobody said what was done before it. @param {GatewayFault} fault */
function unknownBy(fault) {
  const unknown = new OutcomeUnknown(fault.code, fault.message, fault.data);
  unknown.cause = fault;
  return unknown;
}

/** @param {any} told */
const ackOf = ({ order_id: id, client_order_id: name = null, duplicate = false }) => ({
  order_id: String(id),
  client_order_id: name,
  duplicate: Boolean(duplicate),
});
