"""Scores in, pages, figures and CSV files out."""
