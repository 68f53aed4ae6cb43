"""Masks and points: feature maps of a shared network, the decoder above them, its losses and its file."""
