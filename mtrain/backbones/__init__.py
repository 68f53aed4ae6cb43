"""Networks that are described by tables: pathology foundation models and others, in manifests/backbones."""
