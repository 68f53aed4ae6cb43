"""The parts of the shape "points" (dpconvert.readers.layouts.points)."""
