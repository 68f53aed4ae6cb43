"""Classifiers on frozen features, and the folds by which their settings are chosen."""
