"""Scores in: ranks of combinations, the choice for each target, final scores on test sets, the paper's tables."""
