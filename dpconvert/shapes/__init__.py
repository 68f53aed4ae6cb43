"""Common layouts that a manifest can name instead of having a module: what it says in `[files]` and `[layout]` decides."""
