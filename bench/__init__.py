"""Benches of the gateway, each beside a peer that does only the unavoidable, on a real Kafka: `python -m bench`.

What that runs sees the gateway as its clients and Kafka do, and imports nothing of it. A lone figure of a shared machine
says little; what counts is the ratio to the peer, measured in the same run, and the median over rounds.
"""
