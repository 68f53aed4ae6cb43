"""Weights in files: which format a file has, how its tensors are named, and whether they fit a network."""
