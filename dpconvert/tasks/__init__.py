"""Finished task folders in: verified, compared, audited, unpacked, shown on pages."""
