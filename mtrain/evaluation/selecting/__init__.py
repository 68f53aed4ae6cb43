"""From the scores of a sweep to the ranks of its combinations and the choice for each target."""
