"""Methods by name. A new one is one file and one line here."""

from steelshift.methods.adsa import ADSA
from steelshift.methods.dann import DANN
from steelshift.methods.iadsa import IADSA
from steelshift.methods.method import Method
from steelshift.methods.oracle import Oracle
from steelshift.methods.source_only import SourceOnly

METHODS: dict[str, type[Method]] = {
    "source_only": SourceOnly,
    "dann": DANN,
    "adsa": ADSA,
    "iadsa": IADSA,
    "oracle": Oracle,
}
