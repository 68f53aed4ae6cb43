"""Slides of Olympus and Evident: a head `a.vsi`, and a folder `_a_/` with one file of tiles (ETS) per image."""
