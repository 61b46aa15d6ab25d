"""What keeps private encoders honest: difference and reconstruction.

Bousmalis et al., Domain Separation Networks, NeurIPS 2016, in the form of the authors' code.
"""

from torch import Tensor
from torch.nn import functional as F

from steelshift.exact import exact


@exact
def difference_loss(private: Tensor, shared: Tensor) -> Tensor:
    """mean[(Hp' Hc)^2] of one line's features, (B, F) each: centred over the batch, rows of unit length.

    0 where no private direction predicts a shared one.
    """
    private, shared = private.float(), shared.float()
    private = F.normalize(private - private.mean(0), dim=1)
    shared = F.normalize(shared - shared.mean(0), dim=1)
    return (private.T @ shared).square().mean()


def scale_invariant_error(guess: Tensor, truth: Tensor) -> Tensor:
    """mean(d^2) - mean(d)^2 over each image, d = guess - truth, (B, ...): a shift of brightness costs nothing."""
    error = (guess - truth).float().flatten(1)
    return (error.square().mean(1) - error.mean(1).square()).mean()
