"""A source in, the table of its samples out: what is on each image, which patches, which split."""
