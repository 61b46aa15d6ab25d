"""ADSA: Tsai and Chien, Adversarial Domain Separation and Adaptation, MLSP 2017.

L = L_task + L_adapt + .05 L_sep with smoothed labels: IADSA's network and games without embedded samples and without
dynamic weights. The weights and the smoothing are those of the authors' code; its order of many updates a step is the
knob `schedule adsa`, and its minmax separation the knob `separation_game minmax`.
"""

from dataclasses import dataclass
from typing import Literal

from steelshift.methods.iadsa import IADSA


class ADSA(IADSA):
    @dataclass(frozen=True)
    class Knobs(IADSA.Knobs):
        embedding: Literal["none"] = "none"
        """ADSA embeds no samples."""
        adaptation_weight: Literal["fixed"] = "fixed"
        """ADSA's weights are fixed_weights."""
        adaptation_smoothing: float = 0.1
        """Label smoothing of D_a, 0 to .5."""
        separation_smoothing: float = 0.2
        """Label smoothing of D_p, 0 to .5."""
