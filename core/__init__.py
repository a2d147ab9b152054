"""What a gateway knows and decides, without Tornado and, but for `kafka`, without Kafka.

Each room is a package, whose `__init__.py` tells what it is for. From the ground up; a room uses what stands on the lines before
its own, and orders besides use market and accounts (tests/test_layering.py has the whole table of who may import whom):

    errors, log_throttle               the ground: what everybody may use
    messages, delivery                 what is said, and how its bytes reach the sockets
    market, accounts, orders, config   what is known, and what is set
    channels, access, telemetry        who hears of it, who may ask, and what operators see
    protocol, pump, health             one client's dialogue, one beat, and how the process is
    kafka                              the way in and out

State lives in objects that are passed in; time comes in as an argument wherever a test has to hold it.
"""
