"""A long day of the gateway in short, on a real Kafka.

Clients of all kinds of channels that come and go, two slow readers, traders over REST and WebSocket with a simulated
exchange behind them, 200 events a second, and a client that checks that it misses nothing while it leaves and comes back.
Every ten seconds the gateway's memory is looked at. The soak fails (exit code 1) if it grows by 2 % after the first two
minutes, a descriptor is left when everybody has gone, or anybody missed anything. Threads are only told: pools start late.

What the gateway remembers by its settings is full before that, or kept short: 2,000 records of history and the
statistics' buckets of each symbol are filled up before it starts, and closed orders are forgotten after 30 seconds.
"""
