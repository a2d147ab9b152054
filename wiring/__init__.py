"""How the rooms are put together: one builder a room, from the settings; `gateway.py` calls them in order.

A builder makes the parts of its room, connects them, and keeps them as attributes for the rooms that are built after it. It
decides nothing: what a part does, and when, stands with the part.
"""
