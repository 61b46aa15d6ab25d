"""Images and where they come from: reading, decoding, splitting, caching, streaming, synthetic lines."""
