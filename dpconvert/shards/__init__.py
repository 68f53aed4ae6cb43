"""Encode the rows of the plan, and write tar shards with their index, side files and card."""
