/**
 * Plays the program's part of scenes (clients/conformance/README.md) with the client for JavaScript, some side by side: in a page
 * with `play`, in Node as a program, `node scene_player.mjs MODULE [MODULE_WITH_WEBSOCKET]`, with the scenes on its standard
 * input and the faults of each on its standard output.
 */

const STEP_MS = 60_000;
/** A browser makes one that opens many connections at once wait for seconds. */
const AT_ONCE = 6;
/** No waiting between connections, and no time-out because the machine is busy. */
const OPTIONS = { random: () => 0, quietMs: 10 * STEP_MS, timeoutMs: STEP_MS, connectTimeoutMs: STEP_MS };

/**
 * @param {typeof import("../../clients/js/lib/index.js")} client
 * @param {{name: string, url: string, scene: any}[]} scenes
 * @param {object} [options] more of them, for each exchange
 */
export async function play(client, scenes, options = {}) {
  const told = {};
  const left = [...scenes];
  const work = async () => {
    for (let next = left.shift(); next; next = left.shift()) told[next.name] = await faultsOf(client, next.url, next.scene, options);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return told;
}

/** What is not as the scene wants it, on the program's side. */
async function faultsOf(client, url, { tokens = [], bound = 1000, program }, options) {
  let exchange;
  try {
    const left = [...tokens];
    const token = tokens.length ? async () => (left.length > 1 ? left.shift() : left[0]) : null;
    exchange = await client.Exchange.open(url, { token, bound, ...OPTIONS, ...options });
    const player = new Player(client, exchange, url);
    for (const step of program) await within(STEP_MS, step, player.play(step));
    return await (await fetch(`${url}/verdict`)).json();
  } catch (error) {
    return [String(error?.stack ?? error)];
  } finally {
    exchange?.close();
  }
}

async function within(ms, step, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${JSON.stringify(step)}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Player {
  #open = new Map();

  constructor(client, exchange, url) {
    this.client = client;
    this.exchange = exchange;
    this.url = url;
    const { decimal, ...errors } = client;
    this.decimal = decimal;
    this.names = new Map([
      [errors.InvalidFields, "bad_params"],
      [errors.NoSuchMethod, "no_such_method"],
      [errors.NotAuthorised, "not_authorised"],
      [errors.OrderRefused, "order_refused"],
      [errors.CancelFailed, "cancel_failed"],
      [errors.Forbidden, "insufficient_scope"],
      [errors.TooManyRequests, "too_many_requests"],
      [errors.Unavailable, "bus_unavailable"],
      [errors.OutcomeUnknown, "outcome_unknown"],
    ]);
  }

  async play(step) {
    if ("open" in step) {
      const { open: kind, as: name, symbol, ...view } = step;
      const given = [symbol, Object.keys(view).length ? view : undefined].filter((each) => each !== undefined);
      this.#open.set(name, this.exchange[kind](...given));
    } else if ("next" in step) {
      const told = await this.#open.get(step.next).next().then(
        ({ value, done }) => (done ? { done } : this.#seen(value)),
        (error) => this.#seen(error),
      );
      this.#compare(step.is ?? { raises: step.raises }, told);
    } else if ("book" in step) {
      const book = this.#open.get(step.book);
      const pairs = (levels) => levels.map(({ price, quantity }) => [price, quantity]);
      const seen = () => ({ bids: pairs(book.bids), asks: pairs(book.asks), stale: book.stale });
      while (!this.#agrees(step.becomes, seen())) await book.changed();
    } else if ("call" in step) {
      const { call, with: given, within: seconds, gives, raises } = step;
      const method = call.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
      const options = seconds === undefined ? {} : { withinMs: seconds * 1000 };
      const answer = call === "cancel_all" ? this.exchange.cancelAll({ ...given, ...options }) : this.exchange[method](given, options);
      const told = await answer.then(
        (value) => this.#seen(value),
        (error) => this.#seen(error),
      );
      this.#compare(gives ?? { raises }, told);
    } else if ("mark" in step) {
      await fetch(`${this.url}/mark/${step.mark}`);
    } else {
      throw new Error(`no step of a scene: ${JSON.stringify(step)}`);
    }
  }

  /** An item, an answer or an error as a scene has it. */
  #seen(value) {
    if (value instanceof this.client.Gap) return { gap: true };
    if (value instanceof this.client.GatewayError) {
      return { raises: value.code === 1009 ? "too_big" : this.names.get(value.constructor), error: String(value) };
    }
    if (value instanceof Error) throw value;
    if (Array.isArray(value)) return value.map((each) => this.#seen(each));
    return value && typeof value === "object" && "body" in value ? value.body : value;
  }

  #compare(wanted, told) {
    if (!this.#agrees(wanted, told)) throw new Error(`${JSON.stringify(told)} instead of ${JSON.stringify(wanted)}`);
  }

  /** Decimals are text, and agree by their value; a number never agrees with text. */
  #agrees(wanted, told) {
    if (Array.isArray(wanted)) {
      return Array.isArray(told) && wanted.length === told.length && wanted.every((each, at) => this.#agrees(each, told[at]));
    }
    if (typeof wanted === "object" && wanted !== null) {
      const has = (name) => typeof told === "object" && told !== null && name in told;
      return Object.entries(wanted).every(([name, one]) => has(name) && this.#agrees(one, told[name]));
    }
    if (wanted === told) return true;
    const { compare, isDecimal, parse } = this.decimal;
    const isText = [wanted, told].every((each) => typeof each === "string" && isDecimal(each));
    return isText && compare(parse(wanted), parse(told)) === 0;
  }
}

if (typeof process === "object" && process.argv[1]?.endsWith("scene_player.mjs")) {
  const { pathToFileURL } = await import("node:url");
  const { text } = await import("node:stream/consumers");
  const [client, other] = await Promise.all(process.argv.slice(2).map((path) => import(pathToFileURL(path).href)));
  const told = await play(client, JSON.parse(await text(process.stdin)), other && { WebSocket: other.WebSocket });
  process.stdout.write(JSON.stringify(told));
}
