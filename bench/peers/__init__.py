"""Servers that the fan-out is compared with, each sending as its own documentation shows, told what to do as in ticks.py."""
