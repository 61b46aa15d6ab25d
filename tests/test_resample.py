import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional as F

from steelshift.resample import _weights, resample, to_grey, whole

SHAPES = [(64, 64, 16), (100, 57, 32), (33, 200, 40), (16, 16, 64), (224, 150, 64), (7, 9, 8)]


def noise(height, width, batch=2):
    return torch.rand(batch, height, width, generator=torch.Generator().manual_seed(0)) * 255


def all_of(grey):
    return whole(grey[..., None])


@pytest.mark.parametrize("size", [1, 8, 33, 224])
def test_the_same_size_changes_nothing(size):
    grey = noise(size, size)
    assert torch.equal(resample(grey, all_of(grey), size)[:, 0], grey)


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_constant_stays_constant(height, width, size):
    grey = torch.full((1, height, width), 137.0)
    assert torch.allclose(resample(grey, all_of(grey), size), torch.tensor(137.0), atol=1e-3)


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_it_is_antialiased_bilinear(height, width, size):
    grey = noise(height, width)
    found = resample(grey, all_of(grey), size)
    wanted = F.interpolate(grey[:, None], size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    assert (found - wanted).abs().max() < 0.01
    pillow = Image.fromarray(grey[0].numpy()).resize((size, size), Image.Resampling.BILINEAR)
    assert np.abs(found[0, 0].numpy() - np.asarray(pillow)).max() < 0.01


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
def test_a_flipped_box_is_a_flipped_image(height, width, size):
    grey = noise(height, width)
    straight = resample(grey, all_of(grey), size)
    for box, dims in (([height, 0, 0, width], [2]), ([0, width, height, 0], [3]), ([height, width, 0, 0], [2, 3])):
        flipped = resample(grey, torch.tensor([box] * 2, dtype=torch.float32), size)
        assert torch.allclose(flipped, straight.flip(dims), atol=1e-2)


def test_every_image_has_a_box_of_its_own():
    grey = noise(40, 60)
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [10.0, 30.0, 30.0, 50.0]])
    found = resample(grey, boxes, 20)[:, 0]
    assert torch.allclose(found[0], grey[0, :20, :20], atol=1e-2)
    assert torch.allclose(found[1], grey[1, 10:30, 30:50], atol=1e-2)


def test_what_reaches_outside_repeats_the_edge():
    grey = noise(10, 10, 1)
    found = resample(grey, torch.tensor([[-5.0, -5.0, 15.0, 15.0]]), 20)[0, 0]
    wanted = F.pad(grey[:, None], (5, 5, 5, 5), mode="replicate")[0, 0]
    assert torch.allclose(found, wanted, atol=1e-2)


def test_equal_channels_are_the_grey_picture():
    grey = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1)
    assert torch.equal(to_grey(grey), grey[..., 0].float())
    assert torch.allclose(to_grey(grey.expand(-1, -1, -1, 3)), to_grey(grey), atol=1e-3)


def test_colours_weigh_by_luminance():
    pure = torch.eye(3, dtype=torch.uint8).mul(255).reshape(1, 1, 3, 3)
    pillow = np.asarray(Image.fromarray(pure[0].numpy()).convert("L"))
    assert np.abs(to_grey(pure)[0].numpy() - pillow).max() <= 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    length=st.integers(1, 300),
    size=st.integers(1, 256),
    ends=st.tuples(st.floats(-50, 350), st.floats(-50, 350)),
)
def test_weights_are_shares(length, size, ends):
    weights = _weights(torch.tensor([ends[0]]), torch.tensor([ends[1]]), length, size)
    assert weights.shape == (1, size, length) and weights.min() >= 0
    assert torch.allclose(weights.sum(2), torch.ones(1, size), atol=1e-5)


def test_bf16_stays_within_a_grey_level():
    torch.manual_seed(0)
    grey = torch.rand(8, 90, 120) * 255
    boxes = torch.tensor([[3.5, 80.0, 88.0, 2.0]]).expand(8, 4)
    exact, quick = (resample(grey.round(), boxes, 64, bf16=bf16) for bf16 in (False, True))
    assert quick.dtype == torch.float32
    assert (quick - exact).abs().max() < 1.0 and (quick - exact).std() < 0.3
