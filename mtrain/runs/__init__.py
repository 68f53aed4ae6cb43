"""Run folders: their names, their files, and which of those belong together."""
