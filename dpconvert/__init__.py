"""Labelled histology and cytology datasets in, WebDataset shards with task and label metadata out."""

__version__ = "0.1.0"
