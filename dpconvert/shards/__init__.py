"""Rows of the plan in, tar shards with index, side files and card out."""
