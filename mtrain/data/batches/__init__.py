"""Batches: images read, decoded and cropped by workers, moved to the device or kept there, and augmented."""
