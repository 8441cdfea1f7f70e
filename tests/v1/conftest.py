"""Keeps make.py, which only version 0.1.0's code can import, from being looked through for doctests."""

collect_ignore = ["make.py"]
