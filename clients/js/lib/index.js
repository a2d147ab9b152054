/** Streams and orders of an mExchange gateway. `Exchange` is where it begins. */

export * as decimal from "./decimal.js";
export {
  BadRequest,
  CancelFailed,
  ConnectionLost,
  Forbidden,
  GatewayError,
  GatewayFault,
  InvalidFields,
  NoSuchMethod,
  NotAuthorised,
  NotFound,
  OrderRefused,
  OutcomeUnknown,
  TooManyRequests,
  Unavailable,
} from "./errors.js";
export { Exchange } from "./exchange.js";
export { GatewayClient } from "./gateway-client.js";
export { OrderBook } from "./order-book.js";
export { Gap } from "./values.js";
