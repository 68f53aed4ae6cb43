"""List and read the files of a source, also inside archives, and define its images and records."""
