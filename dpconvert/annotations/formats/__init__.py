"""The annotation formats, one module each: bytes of a file in, geometry or listed shapes out."""
