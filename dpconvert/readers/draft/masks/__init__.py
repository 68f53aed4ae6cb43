"""Masks beside images: which files are masks, of which image, and what their values or colours mean."""
