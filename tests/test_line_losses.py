"""Losses of the methods beside IADSA, against slow references and against values recorded of pytorch-adapt."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from steelshift.losses.auxiliary import difference_loss
from steelshift.losses.domain import adaptation_loss, weighted_adaptation_loss
from steelshift.losses.moments import SCALES, covariance_distance, kernel_distance, kernels
from steelshift.losses.unlabelled import (
    class_confusion,
    discrepancy,
    entropy,
    information_maximization,
    margin_disparity,
)

RECORDED = json.loads((Path(__file__).parent / "recorded_losses.json").read_text(encoding="utf-8"))
"""Of pytorch-adapt 0.0.83, by scripts/record_losses.py."""
BANDWIDTH = 3.0


@pytest.fixture
def drawn():
    """The inputs of the recording: features of both lines (12, 6), logits of two classifiers (12, 4)."""
    rng = np.random.default_rng(0)
    source, target = (torch.from_numpy(rng.normal(mean, 1, (12, 6))) for mean in (0.0, 0.5))
    one, other = (torch.from_numpy(rng.normal(0, 2, (12, 4))) for _ in range(2))
    return source, target, one, other


def test_losses_agree_with_pytorch_adapt(drawn):
    source, target, one, other = drawn
    of_features = kernels(torch.cat([source, target]), bandwidth=BANDWIDTH)
    of_logits = kernels(torch.cat([one, other]), bandwidth=BANDWIDTH)
    found = {
        "mmd": kernel_distance(of_features, 12),
        "jmmd": kernel_distance(of_features * of_logits, 12),
        "coral": covariance_distance(source, target),
        "mcc": class_confusion(one, 2.5),
        "mcd": discrepancy(one, other),
        "entropy": entropy(one).mean(),
        "diversity": information_maximization(one) - entropy(one).mean(),
    }
    assert found.keys() == RECORDED.keys()
    for name, value in found.items():
        assert float(value) == pytest.approx(RECORDED[name], rel=2e-5, abs=1e-6), name


def slow_kernel_distance(source, target, layers=((SCALES, None),)):
    """source, target: lists of rows a layer; the definition, pair by pair."""

    def kernel(layer, a, b):
        scales, width = layers[layer]
        if width is None:
            points = [*source[layer], *target[layer]]
            distances = [float((p - q).square().sum()) for p in points for q in points]
            width = sum(distances) / (len(points) * (len(points) - 1))
        return sum(math.exp(-float((a - b).square().sum()) / (2 * scale * width)) for scale in scales) / len(scales)

    def product(i, j, first, second):
        return math.prod(kernel(layer, first[layer][i], second[layer][j]) for layer in range(len(layers)))

    n, m = len(source[0]), len(target[0])
    within_s = sum(product(i, j, source, source) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_t = sum(product(i, j, target, target) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    across = sum(product(i, j, source, target) for i in range(n) for j in range(m)) / (n * m)
    return within_s + within_t - 2 * across


def test_kernel_distances_are_their_definition(drawn):
    source, target, one, other = drawn
    target, other = target[:7], other[:7].softmax(1)
    one = one.softmax(1)
    plain = kernels(torch.cat([source, target]))
    assert float(kernel_distance(plain, 12)) == pytest.approx(slow_kernel_distance([source], [target]), abs=1e-5)
    joint = plain * kernels(torch.cat([one, other]), scales=(1.0,), bandwidth=0.92**2)
    wanted = slow_kernel_distance([source, one], [target, other], [(SCALES, None), ((1.0,), 0.92**2)])
    assert float(kernel_distance(joint, 12)) == pytest.approx(wanted, abs=1e-5)


def test_kernel_distance_is_zero_in_the_mean_for_like_lines_and_grows_with_the_shift():
    rng = torch.Generator().manual_seed(0)

    def mean(shift):
        found = []
        for _ in range(200):
            both = torch.randn(20, 5, generator=rng)
            both[10:] += shift
            found.append(float(kernel_distance(kernels(both), 10)))
        return np.mean(found), np.std(found) / math.sqrt(len(found))

    none, error = mean(0.0)
    assert abs(none) < 4 * error
    assert none + 4 * error < mean(0.5)[0] < mean(1.5)[0]


@pytest.mark.parametrize("rows", [2, 3, 12])
def test_distances_of_equal_and_constant_features_are_finite_with_gradient(rows):
    features = torch.ones(2 * rows, 4, requires_grad=True)
    loss = kernel_distance(kernels(features), rows) + covariance_distance(features[:rows], features[rows:])
    loss.backward()
    assert loss.isfinite() and features.grad.isfinite().all()


def test_covariance_distance_is_that_of_numpy(drawn):
    source, target = drawn[0], drawn[1][:5]
    wanted = np.square(np.cov(source.numpy().T) - np.cov(target.numpy().T)).sum() / (4 * 36)
    assert float(covariance_distance(source, target)) == pytest.approx(wanted, rel=1e-5)
    assert float(covariance_distance(source, source + 5)) == pytest.approx(0, abs=1e-9)


def test_sums_are_exact_under_autocast(drawn):
    source, target, one, _ = (each.float() for each in drawn)

    def values():
        return [
            float(covariance_distance(source=source, target=target)),
            float(kernel_distance(kernels(torch.cat([source, target])), 12)),
            float(class_confusion(one, 2.5)),
            float(difference_loss(source, target)),
        ]

    plain = values()
    with torch.autocast("cpu", torch.bfloat16):
        assert values() == plain


def test_weights_and_bandwidths_have_no_gradient(drawn):
    """Against gradients with the weight, and the bandwidth, held fixed by hand."""
    logits = drawn[2].clone().requires_grad_()
    class_confusion(logits, 2.5).backward()
    held = drawn[2].clone().requires_grad_()
    weights = 1 + torch.exp(-entropy(drawn[2] / 2.5))
    soft = (held.float() / 2.5).softmax(1)
    together = (soft * (weights / weights.mean())[:, None]).T @ soft
    together = together / together.sum(1, keepdim=True)
    ((together.sum() - together.trace()) / 4).backward()
    assert torch.allclose(logits.grad, held.grad, atol=1e-6) and held.grad.norm() > 1e-3
    both = torch.cat(drawn[:2]).clone().requires_grad_()
    kernel_distance(kernels(both), 12).backward()
    fixed = torch.cat(drawn[:2]).clone().requires_grad_()
    width = torch.cdist(fixed, fixed).detach().square().sum().item() / (24 * 23)
    kernel_distance(kernels(fixed, bandwidth=width), 12).backward()
    assert torch.allclose(both.grad, fixed.grad, atol=1e-6) and fixed.grad.norm() > 1e-3


def test_class_confusion_is_its_definition(drawn):
    logits = drawn[2]
    soft = (logits / 2.5).softmax(1)
    weights = torch.tensor([1 + math.exp(float((row * row.log()).sum())) for row in soft])
    weights = weights / weights.sum() * len(weights)
    confusion = torch.zeros(4, 4, dtype=torch.double)
    for weight, row in zip(weights, soft, strict=True):
        for j in range(4):
            for k in range(4):
                confusion[j, k] += weight * row[j] * row[k]
    wanted = sum(float(confusion[j, k] / confusion[j].sum()) for j in range(4) for k in range(4) if j != k) / 4
    assert float(class_confusion(logits, 2.5)) == pytest.approx(wanted, rel=1e-5)
    assert float(class_confusion(100 * torch.eye(4), 1.0)) == pytest.approx(0, abs=1e-6)
    assert float(class_confusion(torch.zeros(8, 4), 1.0)) == pytest.approx(0.75, rel=1e-6)


def test_information_is_best_for_sure_and_varied_answers():
    sure = 100 * torch.eye(4)
    assert float(information_maximization(sure)) == pytest.approx(-math.log(4), rel=1e-5)
    assert float(information_maximization(torch.zeros(4, 4))) == pytest.approx(0, abs=1e-6)
    assert float(information_maximization(sure[:1].expand(4, 4))) == pytest.approx(0, abs=1e-5)


def test_margin_disparity_is_its_definition(drawn):
    _, _, source, target = drawn
    called_s, called_t = torch.arange(12) % 4, (torch.arange(12) + 1) % 4
    of_source = sum(-math.log(float(source.softmax(1)[i, called_s[i]])) for i in range(12)) / 12
    of_target = sum(math.log(1 - float(target.softmax(1)[i, called_t[i]])) for i in range(12)) / 12
    found = margin_disparity(source, called_s, target, called_t, 4.0)
    assert float(found) == pytest.approx(4 * of_source - of_target, rel=1e-5)
    certain = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    loss = margin_disparity(certain, torch.tensor([0]), certain, torch.tensor([0]), 4.0)
    loss.backward()
    assert (
        loss.isfinite() and certain.grad.isfinite().all() and loss.item() == pytest.approx(200 - math.log(2), rel=1e-4)
    )


def test_weighted_adaptation_counts_lines_alike_and_images_by_their_weight():
    rng = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(9, 1, generator=rng), torch.tensor([1] * 6 + [0] * 3)
    plain = weighted_adaptation_loss(logits, truth, torch.ones(9))
    assert float(plain) == pytest.approx(float(adaptation_loss(logits[:6], logits[6:])), rel=1e-6)
    weights = torch.tensor([2.0, 1, 1, 1, 1, 1, 3, 1, 1])
    repeated = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 6, 6, 7, 8])
    again = adaptation_loss(logits[repeated[:7]], logits[repeated[7:]])
    assert float(weighted_adaptation_loss(logits, truth, weights)) == pytest.approx(float(again), rel=1e-6)
    assert float(weighted_adaptation_loss(logits, truth, 7 * weights)) == pytest.approx(float(again), rel=1e-6)
    smoothed = float(adaptation_loss(logits[repeated[:7]], logits[repeated[7:]], 0.1))
    assert float(weighted_adaptation_loss(logits, truth, weights, 0.1)) == pytest.approx(smoothed, rel=1e-6)
