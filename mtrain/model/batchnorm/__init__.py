"""Batch normalization: adapted before a training, with statistics for each task, or over several ranks."""
