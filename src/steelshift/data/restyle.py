"""Source images as the camera of the target line would have taken them, from unlabelled target images alone.

What a camera does to an image is mostly in statistics that say little of its class. Each source image is given those of
the target line:

    polarity     dark or bright field: the one whose skewness lies nearer to that of a target image drawn for it
    spectrum     F -> F min(1, sqrt(P_t / P_s)) + sqrt(max(0, P_t - P_s)) noise; blur takes power away, noise adds some
    grey values  u -> Q_t(CDF_s(u)), those of the target image drawn for it: gamma, saturation

P is the radial power spectrum, a mean over a batch of each line, for the spectrum of one image tells its class. All
this in evenly lit images of unit spread: light and contrast, which the encoder takes out itself, play no part.

Kin: Yang and Soatto, FDA: Fourier Domain Adaptation for Semantic Segmentation, CVPR 2020, who swap the lowest
amplitudes of two images; histogram matching, as in every textbook.
"""

import torch
from torch import Tensor

from steelshift.exact import exact

RANGE = 4.0
"""Grey values of evenly lit images count within plus or minus this many spreads."""
BINS = 256
GREY_LEVELS = 31.0
"""What one spread becomes again."""


@exact
def restyle(source: Tensor, target: Tensor) -> Tensor:
    """Source images in the style of the target line.

    source: float (B, 1, S, S), target: float (C, 1, S, S), both evenly lit and of unit spread. Returns (B, 1, S, S) in
    [0, 255]. Which target image is drawn for which source image, and the noise, are torch's generator's.
    """
    source, target = source[:, 0].float(), target[:, 0].float()
    drawn = torch.randint(len(target), (len(source),)).to(target.device)
    source = source * _nearer_polarity(_skewness(source), _skewness(target)[drawn])[:, None, None]
    source = _with_spectrum(source, target)
    return (128 + GREY_LEVELS * _with_values(source, target[drawn])).clamp(0, 255).unsqueeze(1)


def _skewness(images: Tensor) -> Tensor:
    """(B, S, S) -> (B,)"""
    centred = images - images.mean((1, 2), keepdim=True)
    return centred.pow(3).mean((1, 2)) / centred.square().mean((1, 2)).clamp(min=1e-6).pow(1.5)


def _nearer_polarity(source: Tensor, target: Tensor) -> Tensor:
    """1 or -1 for each pair of skewnesses (B,)."""
    return torch.where((source - target).abs() <= (source + target).abs(), 1.0, -1.0)


def _with_spectrum(source: Tensor, target: Tensor) -> Tensor:
    size = source.shape[-1]
    waves, ring = torch.fft.rfft2(source), _rings(size, source.device)
    power, wanted = _radial(waves, ring), _radial(torch.fft.rfft2(target), ring)
    kept = (wanted / power.clamp(min=1e-12)).clamp(max=1).sqrt()
    added = (wanted - power).clamp(min=0).sqrt() / size  # white noise of unit variance has power size^2
    noise = torch.fft.rfft2(torch.randn(source.shape).to(source.device))
    return torch.fft.irfft2(waves * kept[ring] + noise * added[ring], s=(size, size))


def _rings(size: int, device: torch.device) -> Tensor:
    """int64 (S, S // 2 + 1): the rounded distance from 0 of each frequency of `rfft2`."""
    down = torch.fft.fftfreq(size, 1 / size, device=device)[:, None]
    across = torch.fft.rfftfreq(size, 1 / size, device=device)
    return (down.square() + across.square()).sqrt().round().long()


def _radial(waves: Tensor, ring: Tensor) -> Tensor:
    """Mean power over all images in each ring: (rings,)."""
    power, ring = waves.abs().square().mean(0).flatten(), ring.flatten()
    sums = torch.zeros(2, int(ring.max()) + 1, device=power.device)
    sums.index_add_(1, ring, torch.stack([power, torch.ones_like(power)]))
    return sums[0] / sums[1]


def _with_values(source: Tensor, target: Tensor) -> Tensor:
    """Each source image (B, S, S) with the distribution of grey values of its target image (B, S, S)."""
    levels, share = _distribution(source)
    matched = torch.searchsorted(_distribution(target)[1], share).clamp(max=BINS - 1)
    values = ((matched + 0.5) * (2 / BINS) - 1) * RANGE
    return values.gather(1, levels).view_as(source)


def _distribution(images: Tensor) -> tuple[Tensor, Tensor]:
    """Bin of each pixel, int64 (B, S S), and the share of pixels below the middle of each bin, (B, BINS)."""
    levels = ((images.flatten(1) / RANGE + 1) * (BINS / 2)).floor().clamp(0, BINS - 1).long()
    counts = torch.zeros(len(images), BINS, device=images.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels, dtype=counts.dtype))
    shares = counts / levels.shape[1]
    return levels, shares.cumsum(1) - shares / 2
