"""Numbers that stand in for a class where there is none; -1 is no label at all."""

UNKNOWN = -2
"""Label of an image whose folder or manifest names a class that is none of those asked for."""
