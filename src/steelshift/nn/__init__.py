"""Encoders, heads and the layers between them."""
