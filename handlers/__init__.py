"""HTTP and sockets in, core out: thin.

In: requests and frames, through Tornado. Out: what core decides about them, as answers. A handler reads, asks, and writes;
each file has its own route table at its end, and `server` puts them together.

Uses core but its kafka, pump and health. Which private names of Tornado are relied on, tests/test_private_names.py tells.
"""
