"""From a record in Kafka to one client, in a steady flow and as the first one after quiet, beside a bare `poll()` loop.

`record_to_client` and `idle` are the benches; `publisher`, `stream_client` and `poll_loop` are their parts, each a process.
"""
