"""TIFFs: their layout, the tags and colours of their pages, and pixels read strip by strip or tile by tile."""
