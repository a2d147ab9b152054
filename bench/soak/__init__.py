"""A long day of the gateway in short: `python -m bench.soak`.

`market`, `churn`, `resuming_client` and `traders` are its parts, each a process.
"""
