"""The files of a source on disk, archives read in place, and what flows out of them: `Image` and `Record`."""
