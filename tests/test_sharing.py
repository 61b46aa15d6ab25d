"""Networks that share channels: the document's figures, who reads what, and one pass against a slow loop."""

import pytest
import torch
import torchvision
from torch import nn

from steelshift.errors import UsageError
from steelshift.nn.convolution import WIDE, GroupedConvolution
from steelshift.nn.encoders import Encoder, build_encoder, last_convolution
from steelshift.nn.heads import Heads, Ordinal
from steelshift.nn.sharing import (
    SCHEDULE,
    CrossStitch,
    GroupedLinear,
    SharedLayer,
    SharedTrunk,
    Sharing,
    Width,
    by_task,
    measure_sharing,
    sharing_of,
)

TASKS = 3


def small_alexnet():
    """Three convolutions, two linear layers: the form of AlexNet, seven depths in little."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 20, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1, bias=False), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(),
    )  # fmt: skip


def small_resnet(block="basic"):
    torch.manual_seed(0)
    kind = {"basic": torchvision.models.resnet.BasicBlock, "bottleneck": torchvision.models.resnet.Bottleneck}[block]
    net = torchvision.models.ResNet(kind, [1, 1, 1, 1], num_classes=4, width_per_group=64)
    net.fc = nn.Identity()
    return net


def small_vgg():
    torch.manual_seed(0)
    net = torchvision.models.VGG(torchvision.models.vgg.make_layers([20, "M", 24, "M"], batch_norm=True))
    net.avgpool = nn.AdaptiveAvgPool2d(1)
    net.classifier = nn.Sequential(nn.Linear(24, 60), nn.ReLU(), nn.Dropout(), nn.Identity())
    return net


def together(part, take):
    """What all tasks have of something, one below the other."""
    return torch.cat([take(each) for each in (part if isinstance(part, GroupedLinear) else [part])])


def assemble(layer, plain, task):
    """Give a plain layer the weights of one task's path."""
    s0, (s1, p1) = layer.before.shared, layer.after
    weight = torch.zeros_like(plain.weight)
    bias = None if plain.bias is None else torch.zeros_like(plain.bias)
    rows = slice(s1 + task * p1, s1 + (task + 1) * p1)
    if layer.reads_shared is not None:
        weight[:s1, :s0] = layer.reads_shared.weight[:s1]
        weight[s1:, :s0] = layer.reads_shared.weight[rows]
    if layer.reads_private is not None:
        weight[s1:, s0:] = together(layer.reads_private, lambda each: each.weight)[task * p1 : (task + 1) * p1]
    if bias is not None:
        holder, at = (layer.reads_private, 0) if layer.reads_shared is None else (layer.reads_shared, s1)
        held = together(holder, lambda each: each.bias)
        bias[:s1] = held[:s1]
        bias[s1:] = held[at + task * p1 : at + (task + 1) * p1]
        plain.bias.copy_(bias)
    plain.weight.copy_(weight)


@torch.no_grad()
def slow(trunk, plain, images):
    """Every task's network by itself: (B, tasks, features)."""
    found = []
    for task in range(TASKS):
        layers = [m for m in plain.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        norms = [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
        for layer, one in zip(trunk.shared_layers, layers, strict=True):
            assemble(layer, one, task)
        shared_norms = [m for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)]
        for many, one, layer in zip(shared_norms, norms, trunk.shared_layers, strict=False):
            s, p = layer.after
            for key, value in many.state_dict().items():
                if value.ndim:
                    own = torch.cat([value[:s], value[s + task * p : s + (task + 1) * p]])
                    one.state_dict()[key].copy_(own)
        found.append(plain.eval()(images).flatten(1))
    return torch.stack(found, 1)


def scrambled(trunk):
    """Other weights for every task, so that mixing paths up would show."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng) * parameter.std().nan_to_num(0.1)
        for name, buffer in trunk.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.1 * torch.randn(buffer.shape, generator=rng)
    return trunk


@pytest.mark.parametrize("ratios", [SCHEDULE, (0.9, 0.6, 0.3), (1.0,), (0.0,)])
@pytest.mark.parametrize("make", [small_alexnet, small_resnet, lambda: small_resnet("bottleneck"), small_vgg])
def test_one_pass_equals_a_loop_over_the_tasks(make, ratios):
    trunk = scrambled(SharedTrunk(make(), Sharing(TASKS, ratios))).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = by_task(trunk(images).flatten(1), trunk.ends, TASKS)
    wanted = slow(trunk, make(), images)
    assert found.shape == wanted.shape
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))
    assert ratios == (1.0,) or not torch.allclose(found[:, 0], found[:, 1])


@pytest.mark.parametrize(("inputs", "bias"), [(WIDE, True), (WIDE, False), (3, True)])
def test_a_convolution_a_task_is_the_librarys_grouped_one(inputs, bias):
    torch.manual_seed(0)
    grouped = nn.Conv2d(3 * inputs, 12, 3, stride=2, padding=1, dilation=2, groups=3, bias=bias)
    ours = GroupedConvolution(3 * inputs, 12, 3, stride=2, padding=1, dilation=2, groups=3, bias=bias)
    ours.load_state_dict(grouped.state_dict())
    maps = torch.randn(2, 3 * inputs, 9, 11)
    wanted, found = grouped(maps), ours(maps)
    assert torch.allclose(found, wanted, atol=1e-5)
    wanted.square().sum().backward()
    found.square().sum().backward()
    assert torch.allclose(ours.weight.grad, grouped.weight.grad, rtol=1e-4, atol=1e-3)


def test_hard_sharing_is_the_plain_network_and_every_task_begins_with_it():
    images = torch.randn(2, 3, 32, 32)
    plain = small_alexnet()
    wanted = plain(images)
    assert torch.equal(SharedTrunk(plain, Sharing(TASKS, (1.0,)))(images), wanted)
    separate = by_task(SharedTrunk(plain, Sharing(TASKS, (0.0,)))(images), Width(0, 12), TASKS)
    assert all(torch.allclose(separate[:, task], wanted, atol=1e-6) for task in range(TASKS))


def test_private_channels_get_no_gradient_from_another_task():
    trunk = SharedTrunk(small_alexnet(), Sharing(TASKS))
    images = torch.randn(2, 3, 32, 32)
    by_task(trunk(images), trunk.ends, TASKS)[:, 1].sum().backward()
    reached = []
    for layer in trunk.shared_layers:
        s1, p1 = layer.after
        for part, first in ((layer.reads_shared, s1), (layer.reads_private, 0)):
            if part is not None and p1:
                rows = together(part, lambda each: each.weight.grad)[first:].unflatten(0, (TASKS, p1))
                gradient = rows.flatten(1).abs().sum(1)
                assert gradient[0] == 0 and gradient[2] == 0
                reached.append(gradient[1] > 0)
        if s1:
            assert layer.reads_shared.weight.grad[:s1].abs().sum() > 0
    assert all(reached)


def test_shared_channels_do_not_read_private_ones():
    trunk = SharedTrunk(small_alexnet(), Sharing(TASKS))
    layer = trunk.shared_layers[2]
    assert layer.before.shared and layer.before.private and layer.after.shared
    values = torch.randn(1, layer.before.shared + TASKS * layer.before.private, 5, 5, requires_grad=True)
    layer(values)[:, : layer.after.shared].sum().backward()
    assert values.grad[:, : layer.before.shared].abs().sum() > 0
    assert values.grad[:, layer.before.shared :].abs().sum() == 0


def measured(plain, tasks, ratios=SCHEDULE):
    return measure_sharing(SharedTrunk(plain, Sharing(tasks, ratios)), torch.zeros(1, 3, 224, 224))


def alexnet(end=None):
    net = torchvision.models.alexnet()
    return nn.Sequential(net.features, net.avgpool, nn.Flatten(), *list(net.classifier)[1:end])


def test_figures_of_the_document_for_alexnet():
    schedule = (0.9, 0.9, 0.9, 0.65, 0.65, 0.65, 0.0)
    whole = alexnet(-1)
    assert measured(whole, 4, schedule)["channels"] == pytest.approx(0.66, abs=0.01)
    low, high = (measured(whole, 4, (0.95,) * 3 + (middle,) * 3 + (0.0,)) for middle in (0.65, 0.70))
    assert low["parameters"] == pytest.approx(0.37, abs=0.01)
    assert high["parameters"] == pytest.approx(0.41, abs=0.01)
    assert low["flops_ratio"] == pytest.approx(1.5, abs=0.05)
    convolutions = measured(nn.Sequential(*list(torchvision.models.alexnet().features)), 4)
    assert 0.82 <= convolutions["flops"] <= 0.84


def test_figures_of_the_document_for_vgg16_and_resnet18():
    vgg = measured(torchvision.models.vgg16().features, 4)
    assert vgg["parameters"] == pytest.approx(0.04, abs=0.005) and vgg["flops_ratio"] == pytest.approx(2.8, abs=0.05)
    resnet = torchvision.models.resnet18()
    resnet.fc = nn.Identity()
    assert measured(resnet, 4)["parameters"] == pytest.approx(0.013, abs=0.001)


def test_rivals_share_all_or_nothing():
    plain = small_alexnet()
    images = torch.zeros(1, 3, 32, 32)
    for kind, shared, ratio in (("hard", 1.0, 1.0), ("separate", 0.0, TASKS)):
        found = measure_sharing(SharedTrunk(plain, sharing_of(kind, SCHEDULE, TASKS)), images)
        assert (found["channels"], found["parameters"], found["flops"]) == (shared,) * 3
        assert found["flops_ratio"] == pytest.approx(ratio)


def test_cross_stitch_mixes_as_its_paper_says():
    stitch = CrossStitch(2)
    one, other = torch.randn(3, 4, 5, 5), torch.randn(3, 4, 5, 5)
    mixed = stitch(torch.cat([one, other], 1))
    assert torch.allclose(mixed[:, :4], 0.9 * one + 0.1 * other, atol=1e-6)
    assert torch.allclose(mixed[:, 4:], 0.1 * one + 0.9 * other, atol=1e-6)
    trunk = SharedTrunk(small_alexnet(), sharing_of("cross_stitch", SCHEDULE, TASKS))
    stitches = [module for module in trunk.modules() if isinstance(module, CrossStitch)]
    assert len(stitches) == 5 and trunk.ends == Width(0, 12)
    by_task(trunk(torch.randn(2, 3, 32, 32)), trunk.ends, TASKS)[:, 0].sum().backward()
    assert stitches[0].mixing.grad.abs().sum() > 0


def test_the_last_shared_channels_are_at_hand():
    images = torch.randn(2, 3, 32, 32)
    for ratios, width in ((SCHEDULE, 8), ((0.9, 0.9, 0.5, 0.0), 8), ((0.9, 0.5, 0.0), 12), ((0.0,), 0)):
        trunk = SharedTrunk(small_alexnet(), Sharing(TASKS, ratios))
        features, shared = trunk.both(images)
        assert torch.equal(features, trunk(images))
        assert shared.shape == (2, width) == (2, trunk.shared_width)
    trunk = SharedTrunk(small_alexnet(), Sharing(TASKS, (0.9, 0.9, 0.5, 0.0)))
    found = images
    for layer in trunk.layers[:8]:
        found = layer(found)
    assert torch.allclose(trunk.both(images)[1], found[:, :8].mean((2, 3)), atol=1e-6)


def test_an_encoder_reads_grey_and_gives_every_path():
    torch.manual_seed(0)
    encoder = build_encoder("alexnet", 64, sharing=Sharing(TASKS))
    assert isinstance(encoder, Encoder) and encoder.channels == 1
    ends = encoder.trunk.ends
    assert encoder.width == ends.shared + TASKS * ends.private and sum(ends) == 256
    assert isinstance(last_convolution(encoder), SharedLayer)
    images = 255 * torch.rand(2, 1, 64, 64)
    features, shared = encoder.both(images)
    assert torch.equal(features, encoder(images)) and shared.shape == (2, ends.shared)
    found = measure_sharing(encoder.trunk, torch.zeros(1, 1, 64, 64))
    assert found["flops_ratio"] < 2


@pytest.mark.parametrize("ratios", [(0.5, 0.6), (), (1.2,), (-0.1,)])
def test_ratios_that_cannot_be_are_refused(ratios):
    with pytest.raises(UsageError, match="ratios"):
        Sharing(2, ratios)


def test_other_networks_are_refused_with_a_sentence():
    with pytest.raises(UsageError, match="alexnet, a vgg or a resnet"):
        build_encoder("mobilenet_v3_small", 64, sharing=Sharing(2))


def test_ordinal_head_gives_probabilities_that_rise_with_the_score():
    torch.manual_seed(0)
    head = Ordinal(3, 4)
    features = torch.randn(5, 3)
    log = head(features)
    assert torch.allclose(log.exp().sum(1), torch.ones(5), atol=1e-5)
    with torch.no_grad():
        head.score.weight.copy_(torch.tensor([[1.0, 0.0, 0.0]]))
    mean = (head(torch.tensor([[-3.0, 0, 0], [0, 0, 0], [3.0, 0, 0]])).exp() * torch.arange(4)).sum(1)
    assert mean[0] < mean[1] < mean[2]
    likeliest = head(torch.linspace(-9, 9, 200)[:, None] * torch.tensor([1.0, 0, 0])).argmax(1)
    assert set(likeliest.tolist()) == {0, 1, 2, 3}
    assert Ordinal(3, 2)(features).shape == (5, 2)
    assert torch.isfinite(head(1e4 * features)).all()


def test_heads_read_only_their_own_path():
    heads = Heads([("single-label", 3), ("yes/no", 2), ("ordinal", 4)], Width(5, 2))
    features = torch.randn(2, 5 + 3 * 2, requires_grad=True)
    logits = heads(features)
    assert logits.shape == (2, 9)
    logits[:, 3:5].sum().backward()
    reached = features.grad.abs().sum(0) > 0
    assert reached.tolist() == [True] * 5 + [False] * 2 + [True] * 2 + [False] * 2


def test_weights_of_all_tasks_in_one_tensor_load_as_one_a_task():
    torch.manual_seed(0)
    old = {"a.weight": torch.randn(TASKS * 5, 7), "a.bias": torch.randn(TASKS * 5)}
    holder = nn.ModuleDict({"a": GroupedLinear(7, 5, TASKS, True)})
    holder.load_state_dict(dict(old))
    values = torch.randn(2, TASKS * 7)
    of_task = zip(values.chunk(TASKS, 1), old["a.weight"].chunk(TASKS), old["a.bias"].chunk(TASKS), strict=True)
    expected = [nn.functional.linear(*each) for each in of_task]
    assert torch.equal(holder["a"](values), torch.cat(expected, 1))
    assert torch.equal(holder.state_dict()["a.1.bias"], old["a.bias"][5:10])
