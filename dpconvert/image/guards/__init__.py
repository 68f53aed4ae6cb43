"""Limits for damaged and hostile image files: check the cost of a file before decoding it."""
