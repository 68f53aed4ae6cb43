"""Ranks combinations by their scores, chooses one for each target, scores test sets, and fills the paper's tables."""
