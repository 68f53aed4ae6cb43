"""Compute scores with confidence intervals from labels and decision values."""
