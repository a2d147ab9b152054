/** Streams and orders of an mExchange gateway. What is told has the contract's own names (docs/contract.md). */

/** A decimal with the gateway's digits; never a binary float. `decimal.parse` makes it one to calculate with. */
export type DecimalText = string;
/** A decimal as a program may give it. A number has to be whole: one with a fraction is refused with a TypeError. */
export type DecimalInput = string | bigint | number | decimal.Decimal;
export type Side = "bid" | "ask";
/** Offset of the last record folded in; of several partitions, by partition. */
export type Seq = number | Record<string, number>;
/** How far a stream was read. JSON carries it, and it means the same on every instance. */
export interface Position {
  readonly epoch: string;
  readonly seq: Seq;
}
export interface Within {
  /** Milliseconds for this command with all its repeats. */
  withinMs?: number;
}

// Exact decimals

export namespace decimal {
  /** `units / 10 ** scale`. */
  interface Decimal {
    units: bigint;
    scale: number;
  }
  /** @throws {SyntaxError} not a decimal @throws {RangeError} an exponent or a length that no price has */
  function parse(text: unknown): Decimal;
  function isDecimal(text: unknown): boolean;
  /** Plain notation, every digit of the scale written out. */
  function format(value: Decimal): string;
  /** -1, 0 or 1. */
  function compare(a: Decimal, b: Decimal): number;
  function add(a: Decimal, b: Decimal): Decimal;
  function subtract(a: Decimal, b: Decimal): Decimal;
  function multiply(a: Decimal, b: Decimal): Decimal;
  /** Rounded half away from zero to so many digits after the point. */
  function divide(a: Decimal, b: Decimal, digits: number): Decimal;
  const ZERO: Decimal;
  function isZero(value: Decimal): boolean;
  function isMultipleOf(value: Decimal, step: Decimal): boolean;
  /** Without trailing zeros after the point. */
  function normalise(value: Decimal): Decimal;
  /** The same text for the same value, however it was written. */
  function keyOf(value: Decimal): string;
  /** With so many digits after the point at least. */
  function padded(value: Decimal, scale: number): string;
  /** A binary float, for pixels and nothing else. */
  function toPixels(value: Decimal): number;
  /** `JSON.parse` that loses no digit: a number that a double cannot write back as it came becomes its text. */
  function readExactJson(text: string): any;
}

// What is told

export interface Trade {
  symbol: string;
  price: DecimalText;
  quantity: DecimalText;
  /** The aggressor's. */
  side: "buy" | "sell";
  /** Seconds since the Unix epoch. */
  time: DecimalText;
  /** null for what was kept by an older gateway. */
  trade_id: string | null;
}

/** One's own side of a trade. Who trades with himself has two of one `fill_id`, told apart by `side`. */
export interface Fill {
  fill_id: string;
  order_id: string;
  client_order_id: string | null;
  symbol: string;
  side: Side;
  price: DecimalText;
  quantity: DecimalText;
  liquidity: string | null;
  fee: DecimalText | null;
  fee_currency: string | null;
  /** Seconds since the Unix epoch. */
  time: DecimalText;
}

/** An order's last known state, and what else this exchange's orders carry. */
export interface OrderState {
  order_id: string;
  client_order_id: string | null;
  symbol: string;
  side: Side;
  order_type: string;
  time_in_force: string | null;
  price: DecimalText | null;
  quantity: DecimalText | null;
  filled_quantity: DecimalText;
  status: string;
  /** Seconds since the Unix epoch. */
  time: DecimalText;
  reason?: string | null;
  amend_rejected?: string | null;
  [attribute: string]: unknown;
}

/** What is unknown is 0; all is, while it is `stale` from the beginning. */
export interface Ticker {
  symbol: string;
  mark_price: DecimalText;
  best_bid_price: DecimalText;
  best_bid_amount: DecimalText;
  best_ask_price: DecimalText;
  best_ask_amount: DecimalText;
  last_price: DecimalText;
  volume_24h: DecimalText;
  value_24h: DecimalText;
  low_price_24h: DecimalText;
  high_price_24h: DecimalText;
  change_24h: DecimalText;
  mark_timestamp: DecimalText;
  stale: boolean;
}

/** `volume` is in base, `value` in quote. */
export interface Candle {
  open_time_ms: number;
  open: DecimalText;
  high: DecimalText;
  low: DecimalText;
  close: DecimalText;
  volume: DecimalText;
  value: DecimalText;
  trades: number;
  closed: boolean;
}

/** The engine's own event: `body` as it was written; its decimals are text. */
export interface EngineEvent {
  type: string;
  symbol: string | null;
  body: any;
  partition: number | null;
  seq: Seq;
  snapshot: boolean;
}

/** The last that is known, while it is `stale`. */
export interface Balance {
  currency: string;
  available: DecimalText;
  reserved: DecimalText;
  stale: boolean;
}

export interface Level {
  price: DecimalText;
  quantity: DecimalText;
}

/** The bus has the command. What the engine makes of it, `orders` and `events` tell. */
export interface Ack {
  order_id: string;
  client_order_id: string | null;
  duplicate: boolean;
}

export interface Page<T> {
  /** Oldest first. */
  items: T[];
  /** Nothing between what was asked for and these is left out. */
  isWhole: boolean;
  isLast: boolean;
  epoch: string;
}

/** In place of what was missed and cannot be had. What follows is right again. */
export class Gap {
  constructor(channel: string, reason: string);
  channel: string;
  reason: string;
}

// Streams

/** Breaking out of `for await` closes it; `next()` takes one item. Read by one reader. */
export interface Stream<T> extends AsyncIterableIterator<T> {
  readonly channel: string;
  /** Closed, or ended by an error. */
  readonly isOver: boolean;
  next(): Promise<IteratorResult<T, undefined>>;
  return(): Promise<IteratorResult<T, undefined>>;
  close(): void;
  [Symbol.asyncIterator](): this;
}

/** Every item, in order, each once, or a `Gap` that says so. */
export interface LosslessStream<T> extends Stream<T | Gap> {
  /** How far the program has read: all up to there was handed out. */
  readonly position: Position | null;
}

/** Gives itself after each change. `stale`: not to be traded on. */
export interface Book extends Stream<Book> {
  readonly symbol: string;
  readonly stale: boolean;
  /** Best first. Those of a stale book are the last that were known. */
  readonly bids: Level[];
  readonly asks: Level[];
  readonly bestBid: Level | null;
  readonly bestAsk: Level | null;
  /** The topic's life; null before the first snapshot. */
  readonly epoch: string | null;
  /** -1 before the first snapshot. */
  readonly seq: number;
  /** Of the last change, seconds since the Unix epoch. */
  readonly time: DecimalText;
  /** Of the whole side, beyond the depth too. */
  readonly totalBidAmount: DecimalText;
  readonly totalAskAmount: DecimalText;
  /** How often it did not fit what came, and was asked for anew. */
  readonly mended: number;
  /** Best first, to calculate with. */
  levels(side: Side, count?: number): readonly { price: decimal.Decimal; key: string; quantity: decimal.Decimal }[];
  /** Waits for the next change. Rejects with what ended the book. */
  changed(): Promise<Book>;
  /** Waits until it is not stale. */
  live(): Promise<Book>;
}

// Commands

/** A limit order where there is a price. Other members are the attributes that this exchange's orders carry. */
export interface Place {
  symbol: string;
  side: Side;
  quantity: DecimalInput;
  price?: DecimalInput | null;
  time_in_force?: string;
  /** Yours, or one is made. */
  client_order_id?: string;
  /** Milliseconds since the Unix epoch, by the gateway's clock. */
  deadline_ms?: number;
  [attribute: string]: unknown;
}

/** By one of its names; with its symbol also an order that is older than what the gateway knows. */
export type Which = ({ order_id: string } | { client_order_id: string }) & { symbol?: string };
/** Another price, another total quantity (what is filled included), or both. */
export type Amend = Which & { price?: DecimalInput; quantity?: DecimalInput; deadline_ms?: number };
export type Command = { place: Place } | { cancel: Which } | { amend: Amend };

// The whole of it

export type Token = string | (() => string | Promise<string>);

/** What has to be given where there is none (Node 20): that of `ws`, of `undici`, ... */
export type WebSocketConstructor = new (url: string) => {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(): void;
};

export interface Clock {
  /** Milliseconds, monotonic. */
  now(): number;
  setTimeout(callback: () => void, ms: number): any;
  clearTimeout(timer: any): void;
}

export interface ClientOptions {
  /** true: the gateway's default stream; every public event arrives as "event". */
  defaultStream?: boolean;
  backoffBaseMs?: number;
  backoffCapMs?: number;
  /** A connection this old resets the backoff. */
  stableAfterMs?: number;
  /** After Close 1001 the client is back within this time. */
  goingAwayMs?: number;
  connectTimeoutMs?: number;
  requestTimeoutMs?: number;
  /** Silence after which the connection is probed. */
  quietMs?: number;
  pingTimeoutMs?: number;
  WebSocket?: WebSocketConstructor;
  clock?: Clock;
  /** Uniform in [0, 1), for waits. */
  random?: () => number;
}

export interface ExchangeOptions extends ClientOptions {
  /** A JWT, or a function that gives one whenever one is needed; none: market data alone. */
  token?: Token | null;
  /** That a command or a question may take, with all its repeats, unless it says `withinMs`; 10,000. */
  timeoutMs?: number;
  /** Items of a lossless stream that may wait for the program; 10,000. */
  bound?: number;
  fetch?: (url: string, options: any) => Promise<any>;
  /** Milliseconds since the Unix epoch, which tokens end by. */
  now?: () => number;
}

export class Exchange {
  /** @param url `http://host:port`, also https, ws, wss, a path in front, or the address of `/ws` itself */
  constructor(url: string, options?: ExchangeOptions);
  /** Connected, and signed in where there is a token. Rejects with ConnectionLost or NotAuthorised. */
  static open(url: string, options?: ExchangeOptions): Promise<Exchange>;
  connect(): Promise<void>;
  /** Ends all streams and the connection. Orders stay as they are. */
  close(): void;

  get client(): GatewayClient;
  get isLive(): boolean;
  get userId(): string | null;
  get staleSymbols(): ReadonlySet<string>;

  book(symbol: string, view?: { depth?: number | "all"; interval?: string; grouping?: number | string }): Book;
  trades(symbol: string, from?: { since?: Position | null }): LosslessStream<Trade>;
  events(symbol?: string | null, from?: { since?: Position | null }): LosslessStream<EngineEvent>;
  orders(from?: { since?: Position | null }): LosslessStream<OrderState>;
  fills(from?: { since?: Position | null }): LosslessStream<Fill>;
  ticker(symbol: string, interval?: string): Stream<Ticker>;
  tickers(interval?: string): Stream<Ticker>;
  /** A `Gap` where candles that changed meanwhile could not be asked for. */
  candles(symbol: string, interval?: string): Stream<Candle | Gap>;
  balances(): Stream<Balance>;
  status(): Stream<any>;

  place(order: Place, options?: Within): Promise<Ack>;
  /** Rejects with what `place` would, as far as that can be known before; nothing is ordered. */
  validate(order: Place, options?: Within): Promise<void>;
  /** CancelFailed, with its `orderStatus`, where the order is closed already. */
  cancel(which: Which, options?: Within): Promise<Ack>;
  amend(change: Amend, options?: Within): Promise<Ack>;
  /** At most twenty, in order; what became of each. */
  batch(commands: Command[], options?: Within): Promise<(Ack | GatewayError)[]>;
  /** The ids of the orders that cancels went out for. */
  cancelAll(options?: { symbol?: string } & Within): Promise<string[]>;
  /** All is cancelled in so many seconds unless this comes again; 0 disarms. The moment in milliseconds, or null. */
  cancelAllAfter(seconds: number, options?: Within): Promise<number | null>;

  instruments(): Promise<any>;
  /** The gateway's clock, milliseconds since the Unix epoch. */
  timeMs(): Promise<number>;
  tradesPage(symbol: string, which?: { limit?: number; before?: string; after?: string }): Promise<Page<Trade>>;
  candlesPage(symbol: string, interval?: string, which?: { fromMs?: number; toMs?: number; limit?: number }): Promise<Candle[]>;
  tickersPage(): Promise<Record<string, Ticker>>;
  order(which: { order_id: string } | { client_order_id: string }): Promise<OrderState>;
  openOrders(): Promise<OrderState[]>;
  history(which?: { symbol?: string; fromMs?: number; toMs?: number; limit?: number; before?: string }): Promise<OrderState[]>;
  fillsPage(which?: {
    symbol?: string;
    order_id?: string;
    limit?: number;
    before?: string;
    after?: string;
  }): Promise<Page<Fill>>;
  balance(): Promise<Balance[]>;
}

// What it stands on

export type State = "closed" | "connecting" | "live" | "reconnecting";

export interface Meta {
  channel: string;
  seq: Seq;
  epoch?: string;
  partition?: number;
  /** On the first notification after an interruption of a lossless channel: whether nothing is missing. */
  recovered?: boolean;
}
export type Listener = (notification: any, meta: Meta) => void;

/** Channels to listeners, whatever becomes of connections: what the gateway's own page uses. */
export class GatewayClient extends EventTarget {
  constructor(url: string | URL, options?: ClientOptions);
  url: string;
  get state(): State;
  get userId(): string | null;
  get silentForMs(): number;
  /** "state", "event", "status", "auth", "refused", "fault"; the function that comes back takes the listener off. */
  on(type: string, listener: (payload: any) => void): () => void;
  connect(): void;
  reconnectNow(): void;
  close(): void;
  signIn(token: string, options?: { renews?: boolean }): Promise<string>;
  signOut(): void;
  request(method: string, params?: object, options?: { timeoutMs?: number }): Promise<any>;
  subscribe(channels: string[], listener: Listener): Promise<string[]>;
  unsubscribe(channels: string[], listener?: Listener): Promise<string[]>;
  refresh(channels: string[]): Promise<void>;
  rejoin(channels: string[]): Promise<void>;
}

/** One symbol's book, kept from the notifications of a `book` channel. */
export class OrderBook {
  known: boolean;
  stale: boolean;
  /** Whether it fits what is held; if not, the book is stale. */
  apply(notification: { snapshot?: boolean; bid_changes: unknown[][]; ask_changes: unknown[][] }): boolean;
  forget(): void;
  markStale(): void;
  levels(side: Side, count?: number): { price: decimal.Decimal; key: string; quantity: decimal.Decimal }[];
  best(side: Side): { price: decimal.Decimal; key: string; quantity: decimal.Decimal } | null;
  spread(): decimal.Decimal | null;
  cost(side: Side, quantity: decimal.Decimal, limit?: decimal.Decimal | null): { quantity: decimal.Decimal; cost: decimal.Decimal };
  toString(): string;
}

// Errors: by the contract's codes and problems

/** All that this library rejects with. `code` is the number or the problem's name, or a word for what only this side knows. */
export class GatewayError extends Error {
  constructor(code: number | string, message: string, data?: any);
  code: number | string;
  data: any;
  get retryAfterMs(): number | null;
}
/** There was no connection in the time given, and nothing was sent. */
export class ConnectionLost extends GatewayError {
  constructor(message: string, cause?: unknown);
}
/** The gateway could not read what was sent, or does not take it so. */
export class BadRequest extends GatewayError {}
/** The method is unknown, or not offered here: amends, where there are none. */
export class NoSuchMethod extends GatewayError {}
/** The terms break a rule. */
export class InvalidFields extends GatewayError {
  get errors(): { field: string; message: string }[];
}
/** No token where one is needed, or one that is not accepted (any more). */
export class NotAuthorised extends GatewayError {}
/** Known, and not allowed: by the token's scope, a block, a halt. */
export class Forbidden extends GatewayError {}
/** No such symbol, order or path. */
export class NotFound extends GatewayError {}
/** Understood and refused: other terms under its client_order_id, or no funds. */
export class OrderRefused extends GatewayError {}
/** There is nothing of the caller's to cancel or amend. */
export class CancelFailed extends GatewayError {
  /** What became of a closed order. */
  get orderStatus(): string | null;
}
/** A limit was reached, and `retryAfterMs` is longer than the time that was given. */
export class TooManyRequests extends GatewayError {}
/** Certainly not done, as often as it was tried in the time given. */
export class Unavailable extends GatewayError {}
/** Perhaps done. The same may be sent again, under the same `clientOrderId`. `cause` is what the last attempt met. */
export class OutcomeUnknown extends GatewayError {
  clientOrderId: string | null;
  get orderId(): string | null;
}
/** A fault of the gateway's own, or of what stands behind it. */
export class GatewayFault extends GatewayError {}
