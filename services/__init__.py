"""Clients of what stands beside the gateway: the account service, the issuer's key set, Redis.

In: requests of the rooms in core that define the interface (reservations, keys, limits). Out: their answers, or a typed error
that says what is certain. Each has its timeout, and whoever is down is left alone for a while.

    http_client     connections that are kept                      circuit_breaker  who is down is not asked
    accounts        reservations, and the service's own routes     jwks             rotating public keys
    redis_limits    limits that a fleet shares                     releases         what ended orders left reserved

Uses core but its kafka, pump, health and protocol, and nothing of handlers, process or wiring.
"""
