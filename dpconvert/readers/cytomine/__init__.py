"""Cytomine projects: their exports, what may not be divided in them, their fakes, and the server that holds them."""
