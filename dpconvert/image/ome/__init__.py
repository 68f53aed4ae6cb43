"""OME-XML and OME-Zarr: which images a file holds, which channels are red, green and blue, and the pixels."""
