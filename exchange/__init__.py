"""The simulated exchange of the demo and the integration tests: a matching engine, accounts and traders behind Kafka topics.

It reads order commands, writes market events and accounts, and knows nothing of the gateway; the gateway knows nothing of it.
`python -m exchange --help` runs it as a process of its own, against the embedded cluster or a real Kafka.
It is not a product: its book lives in memory, and a restart begins with an empty one.
"""
