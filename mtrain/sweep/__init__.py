"""Expand a sweep file into cells, and compute one result file per cell, with any number of processes and machines."""
