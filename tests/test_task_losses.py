"""Losses and weightings of many tasks against slow references, torchvision and torchjd."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchjd import scalarization
from torchvision.ops import sigmoid_focal_loss

from steelshift.losses import tasks as losses
from steelshift.losses import weighting
from steelshift.losses.tasks import EMPTY, HARD, REMEMBERED, Decisions, decisions
from steelshift.losses.weights import dwa_weights

RNG = torch.Generator().manual_seed(0)
LOGITS = torch.randn(12, 4, generator=RNG)
LABELS = torch.tensor([0, 1, 2, 3, 0, 0, -1, 1, 2, 0, -1, 3])
MANY = torch.randint(-1, 2, (12, 4), generator=RNG)


def slow_decisions():
    return [
        (math.log(float(row.double().softmax(0)[y])), int(y)) for row, y in zip(LOGITS, LABELS, strict=True) if y >= 0
    ]


def test_decisions_are_the_probabilities_of_the_truth():
    found = decisions(LOGITS, LABELS)
    wanted = slow_decisions()
    assert found.answer.tolist() == [y for _, y in wanted]
    assert torch.allclose(found.log_p, torch.tensor([value for value, _ in wanted]), atol=1e-6)
    many = decisions(LOGITS, MANY)
    wanted = [
        (math.log(1 / (1 + math.exp(-z if y else z))), 2 * k + int(y))
        for row, truth in zip(LOGITS.tolist(), MANY.tolist(), strict=True)
        for k, (z, y) in enumerate(zip(row, truth, strict=True))
        if y >= 0
    ]
    assert many.answer.tolist() == [y for _, y in wanted]
    assert torch.allclose(many.log_p, torch.tensor([value for value, _ in wanted]), atol=1e-6)


def test_cross_entropy_and_mean_square_are_those_of_torch():
    assert torch.allclose(
        losses.cross_entropy(decisions(LOGITS, LABELS)), F.cross_entropy(LOGITS, LABELS, ignore_index=-1)
    )
    there = MANY >= 0
    wanted = F.binary_cross_entropy_with_logits(LOGITS[there], MANY[there].float())
    assert torch.allclose(losses.cross_entropy(decisions(LOGITS, MANY)), wanted)
    rows = LABELS >= 0
    wanted = 4 * F.mse_loss(LOGITS[rows].softmax(1), F.one_hot(LABELS[rows], 4).float())
    assert torch.allclose(losses.mean_square(LOGITS, LABELS), wanted)
    wanted = ((LOGITS.sigmoid() - MANY) ** 2)[there].sum() / there.any(1).sum()
    assert torch.allclose(losses.mean_square(LOGITS, MANY), wanted)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_has_a_slope_where_an_answer_is_as_sure_as_can_be(gamma):
    logits = torch.tensor([[40.0, 0.0, 0.0], [0.0, 40.0, 0.0]], requires_grad=True)
    losses.focal(decisions(logits, torch.tensor([0, 0])), gamma).backward()
    assert logits.grad.isfinite().all() and logits.grad[1, 0] < 0


def test_focal_is_that_of_torchvision():
    there = MANY >= 0
    wanted = sigmoid_focal_loss(LOGITS[there], MANY[there].float(), alpha=-1, gamma=2.0, reduction="mean")
    assert torch.allclose(losses.focal(decisions(LOGITS, MANY), alpha=1.0), wanted)
    slow = np.mean([-0.25 * (1 - math.exp(value)) ** 2 * value for value, _ in slow_decisions()])
    assert float(losses.focal(decisions(LOGITS, LABELS))) == pytest.approx(slow, abs=1e-6)
    assert torch.allclose(
        losses.focal(decisions(LOGITS, LABELS), gamma=0.0, alpha=1.0), losses.cross_entropy(decisions(LOGITS, LABELS))
    )


def test_class_balanced_weights_are_by_effective_number():
    counts = torch.tensor([100, 10, 5, 1])
    each = [(1 - 0.99) / (1 - 0.99 ** int(n)) for n in counts]
    assert each[3] == pytest.approx(1.0)
    weights = [each[y] for _, y in slow_decisions()]
    wanted = -sum(w * v for w, (v, _) in zip(weights, slow_decisions(), strict=True)) / sum(weights)
    assert float(losses.class_balanced(decisions(LOGITS, LABELS), counts, beta=0.99)) == pytest.approx(wanted, abs=1e-5)


def stream(shares, steps, batch=16, seed=0):
    """Decisions whose probabilities are uniform, batch by batch, with few of the rarer classes in each."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        answer = torch.from_numpy(rng.choice(len(shares), batch, p=shares))
        yield Decisions(torch.from_numpy(rng.random(batch).astype(np.float32)).log(), answer)


def test_fifteen_percent_of_each_class_are_hard_however_few_are_in_a_batch():
    shares = [0.7, 0.25, 0.05]
    queue = torch.full((3, REMEMBERED), EMPTY)
    hard, seen = torch.zeros(3), torch.zeros(3)
    for step, found in enumerate(stream(shares, 1600)):
        queue = losses.remember(queue, found)
        if step >= 400:
            m = losses.hard_weights(found, queue)
            for c in range(3):
                hard[c] += (m[found.answer == c] == 4).sum()
                seen[c] += (found.answer == c).sum()
    assert (hard / seen).tolist() == pytest.approx([HARD] * 3, abs=0.025)


def test_a_class_that_was_hardly_seen_has_no_hard_decisions_and_an_absent_one_changes_nothing():
    found = Decisions(torch.tensor([0.1, 0.9, 0.5]).log(), torch.tensor([0, 0, 2]))
    queue = losses.remember(torch.full((4, REMEMBERED), EMPTY), found)
    assert losses.hard_weights(found, queue).tolist() == [1, 1, 1]
    assert (queue[1] == EMPTY).all() and (queue[3] == EMPTY).all() and (queue[0] < EMPTY).sum() == 2


def test_exactly_the_lowest_are_hard_and_get_their_gradient_times_mu():
    p = torch.linspace(0.05, 0.95, 20)
    logits = torch.stack([(p / (1 - p)).log(), torch.zeros(20)], 1).requires_grad_()
    found = decisions(logits, torch.zeros(20, dtype=torch.int64))
    queue = losses.remember(torch.full((2, REMEMBERED), EMPTY), found)
    m = losses.hard_weights(found, queue)
    assert m.tolist() == [4.0] * 3 + [1.0] * 17 and not m.requires_grad
    assert losses.hard_weights(found, queue, ramp=True).tolist() == [5.0, 4.0, 3.0] + [1.0] * 17
    assert losses.hard_weights(found, queue, p_min=0.08).tolist() == [1.0] + [4.0] * 2 + [1.0] * 17
    plain = torch.autograd.grad(losses.focal(found), logits, retain_graph=True)[0]
    hard = torch.autograd.grad(losses.focal(found, weights=m), logits)[0]
    assert torch.allclose(hard, plain * m[:, None])


def test_the_queue_keeps_the_newest():
    queue = torch.full((1, REMEMBERED), EMPTY)
    for step in range(REMEMBERED + 3):
        queue = losses.remember(queue, Decisions(torch.tensor([step / 1000]).log(), torch.tensor([0])))
    assert queue[0, 0] == pytest.approx((REMEMBERED + 2) / 1000) and queue.min() == pytest.approx(0.003, abs=1e-6)


SAID = F.one_hot(torch.tensor([0, 1, 1, 2, 2, 0, 1]), 3).float()
TRUE = torch.tensor([0, 1, 0, 2, 1, -1, 1])


@pytest.mark.parametrize(
    ("rate", "negative", "wanted"),
    [
        ("err", None, 2 / 6),
        ("fdr", None, (0 + 1 / 3 + 1 / 2) / 3),
        ("fpr", None, (0 + 1 / 3 + 1 / 5) / 3),
        ("fdr", 0, (1 / 3 + 1 / 2) / 2),
        ("fpr", 0, (1 / 3 + 1 / 5) / 2),
    ],
)
def test_false_detections_in_three_readings(rate, negative, wanted):
    assert float(losses.false_detections(SAID, TRUE, rate, negative)) == pytest.approx(wanted)


def test_false_detections_of_many_labels_and_of_nothing():
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    labels = torch.tensor([[1, 0], [0, 1], [-1, 0]])
    assert float(losses.false_detections(logits, labels, "err", None)) == pytest.approx(2 / 5)
    assert float(losses.false_detections(logits, labels, "fdr", None)) == pytest.approx(1 / 2)
    assert float(losses.false_detections(logits, labels, "fpr", None)) == pytest.approx((1 / 1 + 1 / 2) / 2)
    assert losses.false_detections(SAID, torch.full((7,), -1), "err", None).isnan()
    nothing = F.one_hot(torch.zeros(3, dtype=torch.int64), 2).float()
    assert losses.false_detections(nothing, torch.tensor([0, 1, 0]), "fdr", 0).isnan()


def test_the_task_weight_rises_past_its_threshold():
    found = losses.task_weight(torch.tensor([0.0, 0.1, 0.55, 1.0]))
    assert torch.allclose(found, torch.tensor([1.0, 1.0, 1.5, 3.0]))


def test_uncertainty_and_famo_are_those_of_torchjd():
    values = torch.tensor([0.7, 1.3, 0.2], requires_grad=True)
    theirs = scalarization.UW(3)
    assert torch.allclose(weighting.uncertainty_loss(values, torch.zeros(3)), theirs(values))
    famo = scalarization.FAMO(3)
    logits, moments, steps = torch.zeros(3), torch.zeros(2, 3), torch.zeros(())
    for step in range(5):
        now = values * (1 + 0.1 * step * torch.tensor([1.0, -1.0, 2.0]))
        after = (now * torch.tensor([0.9, 0.99, 1.05])).detach()
        one, other = weighting.famo_loss(now, logits), famo(now)
        assert torch.allclose(one, other)
        assert torch.allclose(*(torch.autograd.grad(each, values, retain_graph=True)[0] for each in (one, other)))
        famo.update(after)
        weighting.famo_step(logits, moments, steps, now.detach(), after)
        assert torch.allclose(logits, famo._w, atol=1e-6)


def test_dwa_and_random_weights_are_those_of_torchjd():
    values = torch.tensor([0.7, 1.3, 0.2])
    theirs = scalarization.DWA()
    epochs = [values, values * torch.tensor([0.5, 0.9, 1.0])]
    for epoch in epochs:
        theirs(epoch)
        theirs.step()
    assert torch.allclose((dwa_weights(epochs[1], epochs[0]) * values).sum(), theirs(values))
    torch.manual_seed(3)
    mine = weighting.random_weights(3)
    torch.manual_seed(3)
    assert torch.allclose((mine * values).sum() / 3, scalarization.Random()(values))


def test_gradnorm_moves_weight_to_the_task_that_learns_slowest():
    norms, first = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.0])
    logits = torch.zeros(2, requires_grad=True)
    loss = weighting.gradnorm_loss(logits, norms, torch.tensor([0.9, 0.3]), first)
    ratio = np.array([0.9, 0.3]) / 0.6
    assert float(loss.detach()) == pytest.approx(np.abs(1 - ratio**1.5).sum(), rel=1e-5)
    gradient = torch.autograd.grad(loss, logits)[0]
    assert gradient[0] < 0 < gradient[1]
    even = weighting.gradnorm_loss(logits, norms, first, first)
    assert float(even.detach()) == 0


def test_relatedness_gives_weight_to_what_is_related():
    matrix = torch.tensor([[1.0, 0.8, 0.6], [0.8, 1.0, 0.0], [0.6, 0.0, 1.0]])
    wanted = 3 * torch.softmax(torch.tensor([0.7, 0.4, 0.3]) / 0.5, 0)
    assert torch.allclose(weighting.relatedness_weights(matrix), wanted)
    assert weighting.relatedness_weights(torch.ones(1, 1)).tolist() == [1.0]
    gradients = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = weighting.gradient_cosines(gradients)
    assert found[0, 1] == pytest.approx(0.5**0.5) and found[2].tolist() == [0, 0, 0]
