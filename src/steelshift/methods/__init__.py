"""Methods by name. A new one is one file and one line here."""

from steelshift.methods.adabn import AdaBN
from steelshift.methods.adda import ADDA
from steelshift.methods.adsa import ADSA
from steelshift.methods.bridge import Bridge
from steelshift.methods.cdan import CDAN
from steelshift.methods.coral import CORAL
from steelshift.methods.dan import DAN
from steelshift.methods.dann import DANN
from steelshift.methods.dsn import DSN
from steelshift.methods.fixmatch import FixMatch
from steelshift.methods.iadsa import IADSA
from steelshift.methods.jan import JAN
from steelshift.methods.mcc import MCC
from steelshift.methods.mcd import MCD
from steelshift.methods.mdd import MDD
from steelshift.methods.method import Method
from steelshift.methods.multitask import MultiTask
from steelshift.methods.oracle import Oracle
from steelshift.methods.sdat import SDAT
from steelshift.methods.shot import SHOT
from steelshift.methods.source_only import SourceOnly
from steelshift.methods.tent import TENT

METHODS: dict[str, type[Method]] = {
    "source_only": SourceOnly,
    "dan": DAN,
    "jan": JAN,
    "coral": CORAL,
    "dann": DANN,
    "cdan": CDAN,
    "sdat": SDAT,
    "adda": ADDA,
    "mcd": MCD,
    "mdd": MDD,
    "mcc": MCC,
    "dsn": DSN,
    "adsa": ADSA,
    "iadsa": IADSA,
    "fixmatch": FixMatch,
    "bridge": Bridge,
    "multitask": MultiTask,
    "shot": SHOT,
    "adabn": AdaBN,
    "tent": TENT,
    "oracle": Oracle,
}
