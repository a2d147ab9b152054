"""Orders in, with a token, beside a bare producer and a bare Tornado handler.

`compared` is the bench and `profile` tells where the time goes; `load`, `bare_producer`, `bare_server` and `run_profiled`
are processes of their own.
"""
