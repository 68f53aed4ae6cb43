"""Turns scores into pages, figures and CSV files."""
