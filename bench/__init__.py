"""Benches of the gateway, each beside a peer that does only the unavoidable, on a real Kafka: `python -m bench`.

Its benches are latency, orders, startup and fanout, whose peers are in peers; all are made of what is in support. They see
the gateway as its clients and Kafka do, and import nothing of it, but for the bare fan-out. soak is a command of its own,
and so are the single files, which measure one piece of the gateway inside their own process. A lone figure of a shared
machine says little; what counts is the ratio to the peer, measured in the same run, and the median over rounds.
"""
