"""Common layouts that a manifest can name instead of having a module; its `[files]` and `[layout]` decide."""
