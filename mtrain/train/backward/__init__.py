"""Gradients: summed over ranks, compared between tasks, combined where tasks conflict, and the same on each run."""
