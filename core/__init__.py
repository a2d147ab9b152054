"""What a gateway knows and decides, without HTTP, without Tornado and, but for `kafka`, without Kafka.

Each room is a package whose first page tells what it is for. From the ground up, and a room uses only what is below it
(tests/test_layering.py has the whole table):

    errors, log_throttle               what everybody may use
    messages, delivery                 what is said, and how its bytes reach the sockets
    market, orders, config             what is known, and what is set
    channels, access, telemetry        who hears of it, who may ask, and what operators see
    protocol, pump, health             one client's dialogue, one beat, and how the process is
    kafka                              the way in and out

State lives in objects that are passed in; time and randomness come in as arguments.
"""
