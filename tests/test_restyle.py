import numpy as np
import pytest
import torch
from scipy import ndimage

from steelshift.data.restyle import _radial, _rings, _skewness, restyle
from steelshift.nn.encoders import even_light, light_window

SIZE = 64


def even(pictures: np.ndarray) -> torch.Tensor:
    return even_light(torch.from_numpy(pictures.astype(np.float32))[:, None], light_window(SIZE))


def steel(count: int, seed: int) -> np.ndarray:
    """Grainy surface with some dark spots, (count, SIZE, SIZE)."""
    rng = np.random.default_rng(seed)
    grain = ndimage.gaussian_filter(rng.standard_normal((count, SIZE, SIZE)), (0, 0.7, 0.7)) * 12
    spots = ndimage.gaussian_filter((rng.random((count, SIZE, SIZE)) < 0.004).astype(float), (0, 1.2, 1.2))
    return 140 + grain - 500 * spots


def power(images: torch.Tensor) -> torch.Tensor:
    return _radial(torch.fft.rfft2(images), _rings(images.shape[-1], images.device))


def test_nothing_changes_where_both_lines_are_the_same():
    images = even(steel(1, 0))
    again = even_light(restyle(images, images), light_window(SIZE))
    assert torch.corrcoef(torch.stack([images.flatten(), again.flatten()]))[0, 1] > 0.97


def test_polarity_becomes_that_of_the_target():
    source = even(steel(6, 0))
    for picture, sign in ((steel(6, 1), -1), (255 - steel(6, 1), 1)):
        found = restyle(source, even(picture))[:, 0]
        assert (_skewness(source[:, 0]) < 0).all()
        assert (_skewness(found) * sign > 0).all()


@pytest.mark.parametrize(
    "camera",
    [
        lambda picture: ndimage.gaussian_filter(picture, (0, 1.5, 1.5)),
        lambda picture: picture + np.random.default_rng(2).standard_normal(picture.shape) * 25,
    ],
    ids=["blur", "noise"],
)
def test_spectrum_becomes_that_of_the_target(camera):
    source, target = even(steel(8, 0)), even(camera(steel(8, 1)))
    found = even_light(restyle(source, target), light_window(SIZE))
    at = slice(8, 30)  # below, the window of light; above, the corners
    before = (power(source[:, 0]) / power(target[:, 0])).log().abs()[at].mean()
    after = (power(found[:, 0]) / power(target[:, 0])).log().abs()[at].mean()
    assert after < before / 2


def test_grey_values_become_those_of_the_target_image():
    target = even(255 * (steel(1, 1).clip(0, 255) / 255) ** 3)
    found = restyle(even(steel(3, 0)), target)
    wanted = (128 + 31 * target).clamp(0, 255).flatten().sort().values
    for image in found:
        assert (image.flatten().sort().values - wanted).abs().mean() < 1.0  # a bin is a grey level wide


def test_autocast_changes_nothing():
    source, target = even(steel(4, 0)), even(steel(4, 1))
    torch.manual_seed(0)
    plain = restyle(source, target)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(restyle(source, target), plain)
    assert plain.dtype == torch.float32 and plain.min() >= 0 and plain.max() <= 255


def test_an_even_image_does_no_harm():
    flat = torch.zeros(2, 1, SIZE, SIZE)
    assert restyle(flat, even(steel(2, 1))).isfinite().all()
    assert restyle(even(steel(2, 1)), flat).isfinite().all()
