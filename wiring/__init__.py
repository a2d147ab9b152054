"""How the rooms are put together, from the settings: a builder each for the bus, the market and its channels, orders, access, HTTP.

In: `Settings`, and what was built before. Out: the parts of some rooms, connected; `gateway.py` calls the builders in order. A
builder makes the parts, connects them, and keeps them as attributes for those who come after it. It decides nothing: what a
part does, and when, stands with the part. Uses everything but gateway.
"""
