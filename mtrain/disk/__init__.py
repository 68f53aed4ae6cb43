"""Files that mtrain writes: complete or absent, and with their digests."""
