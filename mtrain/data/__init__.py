"""Load batches from shards onto the device."""
