"""Plan a conversion: read the annotations of a source, choose its patches, and assign every sample to a split."""
