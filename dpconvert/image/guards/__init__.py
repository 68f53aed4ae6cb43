"""Limits for damaged and hostile image files: what one would cost is known before it is decoded."""
