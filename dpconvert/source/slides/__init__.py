"""Slides whose files belong together, are mixed with others or are scattered."""
