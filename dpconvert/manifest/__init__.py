"""Read manifests: TOML files that describe a source and are validated as a `Manifest`."""
