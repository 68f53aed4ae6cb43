"""Weights of several runs -> one network: averages of seeds, and sums of what runs have learnt."""
