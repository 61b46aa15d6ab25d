"""An inspector's graph in 8 bit, calibrated on images without labels."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Sequence

import numpy as np
import onnx

from steelshift.inspection.graph import PREPARING
from steelshift.inspection.runtimes import PIXELS, without_reports


def to_int8(model: onnx.ModelProto, images: Sequence[np.ndarray]) -> onnx.ModelProto:
    """Weights and activations of the network in int8; preprocessing stays as it is, for grey levels need more.

    images: uint8 (H, W, C), of the line that the inspector is for; a few hundred.
    """
    without_reports()
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    data = nncf.Dataset(list(images), lambda pixels: {PIXELS: pixels[None]})
    # The whole range counts: images with strong contrast, which is cut off otherwise, change class first.
    whole = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
    # Progress bars are no results, and those alone go to stdout.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nncf.quantize(
            model,
            data,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            fast_bias_correction=False,
            # Products of whole stacks of matrices, which networks of several tasks have, stay too: ONNX Runtime has
            # none of them in int8.
            ignored_scope=nncf.IgnoredScope(patterns=[f"{PREPARING}.*", ".*bmm.*"], validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(activations_range_estimator_params=whole),
        )
