"""What is known about a source, written once: TOML in, a validated `Manifest` out."""
