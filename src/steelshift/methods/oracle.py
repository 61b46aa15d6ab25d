"""Oracle: source only, fed with the labelled training split of the target line. The ceiling of every table.

It is computed to judge, after everything else is chosen, and never chooses anything.
"""

from steelshift.methods.source_only import SourceOnly


class Oracle(SourceOnly):
    uses_labels = False
