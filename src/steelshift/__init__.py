"""Move a surface-defect inspector from a labelled production line to an unlabelled one.

Importing this package, decoding images and deciding never import torch; each command imports what it needs.
"""

__version__ = "0.1.0"
