"""The method of many tasks: every loss, weighting, aggregator and reading, on a tiny network."""

import warnings
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torchjd import aggregation

from builders import SIDE
from steelshift.data.stream import SourceBatch, TargetBatch
from steelshift.data.tasks import Task
from steelshift.errors import UsageError
from steelshift.methods import SourceOnly
from steelshift.methods.method import Start
from steelshift.methods.multitask import MEANS, MultiTask, _aggregator_of
from steelshift.nn.convolution import quicken
from steelshift.nn.encoders import Encoder
from steelshift.nn.heads import Heads
from steelshift.nn.reversal import ramp
from steelshift.nn.sharing import SCHEDULE, SharedTrunk, by_task, sharing_of
from steelshift.training.config import Config, check_tasks
from steelshift.training.loop import _optimizers


def task(name, kind, classes):
    return Task(name, kind, classes, {value: (index,) for index, value in enumerate(classes)})


TASKS = (
    task("direction", "single-label", ("across", "down", "both")),
    task("is it fine?", "yes/no", ("no", "yes")),
    task("分级", "ordinal", ("low", "middle", "high")),
    task("marks", "multi-label", ("dot", "bar")),
)
COUNTS = {"direction": torch.tensor([40.0, 40.0, 4.0]), "is it fine?": torch.tensor([20.0, 20.0])}


def start(sharing="progressive", ratios=SCHEDULE, seed=0):
    torch.manual_seed(seed)
    plain = nn.Sequential(
        nn.Conv2d(3, 20, 5, stride=4, padding=2), nn.ReLU(), nn.Conv2d(20, 20, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(80, 20), nn.ReLU(),
        nn.Linear(20, 20), nn.ReLU(),
    )  # fmt: skip
    trunk = SharedTrunk(plain, sharing_of(sharing, ratios, len(TASKS)))
    encoder = Encoder(quicken(trunk, SIDE) or trunk, SIDE, 1)
    heads = Heads([(each.kind, len(each.classes)) for each in TASKS], trunk.ends)
    return Start(encoder, heads, "joint", 2, TASKS, COUNTS)


def build(sharing="progressive", ratios=SCHEDULE, **knobs):
    made = start(sharing, ratios)
    torch.manual_seed(1)
    return MultiTask(made, MultiTask.Knobs(**{"hidden": 16} | knobs)).train()


def batches(step, count=12):
    """Stripes whose direction, pitch, extent and marks are the labels; each image lacks some of them."""
    rng = torch.Generator().manual_seed(step)
    pitches = torch.tensor([0.5, 1.1])[:, None, None] * torch.arange(SIDE)
    across, down = pitches.expand(2, SIDE, SIDE), pitches.mT.expand(2, SIDE, SIDE)
    kinds = torch.stack([across.sin(), down.sin(), (across + down).sin()])
    direction, fine, level = (torch.randint(0, most, (count,), generator=rng) for most in (3, 2, 3))
    marks = torch.randint(0, 2, (count, 2), generator=rng)
    images = 120 + 40 * kinds[direction, fine]
    for image, most in zip(images, level, strict=True):
        image[10 * (int(most) + 1) :] = 120
    images[:, :6, :6] += 80 * marks[:, :1, None]
    images[:, -3:] += 80 * marks[:, 1:, None]
    images = (images + 8 * torch.randn(images.shape, generator=rng)).clamp(0, 255).unsqueeze(1)
    labels = dict(zip((each.name for each in TASKS), (direction, fine, level, marks), strict=True))
    for place, truth in enumerate(labels.values()):
        truth[place::4] = -1
    target = (images.flip(3) * 0.6).clamp(0, 255)
    return SourceBatch(images, labels), TargetBatch(target, target)


def walk(method, steps, *, target=True, source=None, first=0, rate=0.02, kind=torch.optim.SGD):
    """The loop in small; yields updates after their backward pass."""
    optimizers = {
        name: kind(moving, rate)
        for name, child in method.named_children()
        if (moving := [parameter for parameter in child.parameters() if parameter.requires_grad])
    }
    for step in range(first, first + steps):
        torch.manual_seed(step)
        one, other = batches(step)
        for update in method.updates(source or one, other if target else None, 0.3 + 0.05 * min(step, 10)):
            for child in method.children():
                child.zero_grad(set_to_none=True)
            update.backward([value for name in update.moves for value in optimizers[name].param_groups[0]["params"]])
            yield update
            for name in update.moves:
                nn.utils.clip_grad_norm_(method.get_submodule(name).parameters(), 5.0)
                optimizers[name].step()


def norm(module):
    gradients = [value.grad for value in module.parameters() if value.grad is not None]
    return float(sum(gradient.square().sum() for gradient in gradients)) ** 0.5 if gradients else 0.0


AGGREGATORS = ["upgrad", "pcgrad", "cagrad", "mgda", "imtl_g", "aligned_mtl", "gradvac", "nash_mtl"]
VARIANTS = (
    [{"loss": name} for name in ("cross_entropy", "mean_square", "focal", "class_balanced", "dynamic_balanced_focal")]
    + [{"weighting": name} for name in ("uncertainty", "dwa", "gradnorm", "rlw", "famo", "relatedness")]
    + [{"aggregator": name} for name in AGGREGATORS]
    + [{"reading": name} for name in ("adversarial", "acgan", "split")]
    + [{"rate": "fdr", "ramp": True}, {"rate": "fpr", "minority": 0.2, "reading": "acgan"}]
)


@pytest.mark.parametrize("knobs", VARIANTS, ids=str)
@pytest.mark.parametrize("target", [True, False], ids=["target", "alone"])
def test_every_variant_trains_every_task(knobs, target):
    method = build(**knobs)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    for update in walk(method, 2, target=target):
        assert update.loss.isfinite() and all(value.isfinite() for value in update.log.values())
        assert norm(method.shared_encoder) > 0 and norm(method.task_classifier) > 0
        assert {f"L {each.name}" for each in TASKS} <= update.log.keys()
        assert "discriminator" in update.moves or not (target or knobs.get("reading"))
    for head in method.task_classifier.of_task:
        assert norm(head) > 0
    assert any(not torch.equal(before[key], value) for key, value in method.state_dict().items() if "trunk" in key)


@pytest.mark.parametrize("sharing", ["hard", "cross_stitch", "separate"])
def test_rivals_of_progressive_sharing_train_too(sharing):
    method = build(sharing)
    for _ in walk(method, 1):
        assert norm(method.shared_encoder) > 0


def test_tasks_are_learnt():
    method = build()
    logs = [update.log for update in walk(method, 150, target=False, rate=4e-3, kind=torch.optim.AdamW)]
    for each in TASKS:
        early, late = (sum(float(log[f"L {each.name}"]) for log in part) / 20 for part in (logs[:20], logs[-20:]))
        assert late < 0.8 * early, each.name


def theirs(name, matrix):
    match name:
        case "cagrad":
            return aggregation.CAGrad(c=0.5)(matrix)
        case "nash_mtl":
            nash = aggregation.NashMTL(n_tasks=len(TASKS), max_norm=1.0, update_weights_every=1, optim_niter=20)
            with warnings.catch_warnings(action="ignore", category=UserWarning):
                return nash(matrix)
    classes = {"upgrad": "UPGrad", "pcgrad": "PCGrad", "mgda": "MGDA", "imtl_g": "IMTLG", "aligned_mtl": "AlignedMTL",
               "gradvac": "GradVac"}  # fmt: skip
    return getattr(aggregation, classes[name])()(matrix)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_an_aggregator_acts_on_shared_rows_alone(name):
    """Against gradients of every loss by itself, brought together by hand."""
    method = build(aggregator=name, loss="cross_entropy")
    source, _ = batches(0)
    torch.manual_seed(5)
    update = next(method.updates(source, None, 0.5))
    parameters = list(method.shared_encoder.parameters())
    grads = [torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True) for loss in update.of_tasks]
    grads = [[torch.zeros_like(p) if g is None else g for g, p in zip(row, parameters, strict=True)] for row in grads]
    shared = dict(update.shared)
    assert 0 < len(shared) < len(parameters)
    matrix = torch.stack([
        torch.cat([g[: shared.get(p, 0)].flatten() for g, p in zip(row, parameters, strict=True)]) for row in grads
    ])  # fmt: skip
    torch.manual_seed(7)
    wanted = theirs(name, matrix)
    torch.manual_seed(7)
    update.backward([*parameters, *method.task_classifier.parameters()])
    found = torch.cat([p.grad[: shared.get(p, 0)].flatten() for p in parameters])
    assert torch.allclose(found, wanted * (len(grads) if name in MEANS else 1), atol=1e-6)
    for place, parameter in enumerate(parameters):
        own = sum(row[place] for row in grads)[shared.get(parameter, 0) :]
        assert torch.allclose(parameter.grad[shared.get(parameter, 0) :], own, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in AGGREGATORS if name != "nash_mtl"])  # which fixes the length
def test_tasks_that_agree_take_the_step_of_equal_weights(name):
    gradients = torch.randn(30, generator=torch.Generator().manual_seed(0)).repeat(4, 1)
    found = _aggregator_of(name, 4)(gradients)
    longer = 1.5 if name == "cagrad" else 1.0  # by its c of one half
    assert torch.allclose(found, longer * gradients.sum(0), atol=1e-4)


def test_gradient_vaccine_remembers_from_step_to_step_and_in_checkpoints():
    method, reference = build(aggregator="gradvac"), aggregation.GradVac()
    drawn = [torch.randn(4, 30, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    for seed, gradients in enumerate(drawn):
        torch.manual_seed(seed)
        found = method._aggregator([0, 1, 2, 3])(gradients)
        torch.manual_seed(seed)
        assert torch.allclose(found, reference(gradients), atol=1e-6)
    assert "wanted_cosine" in method.state_dict() and (method.wanted_cosine != 0).any()
    torch.manual_seed(9)
    method._aggregator([3, 1])(drawn[0][:2])
    torch.manual_seed(9)
    assert not torch.allclose(aggregation.GradVac()(drawn[0]), method._aggregator([0, 1, 2, 3])(drawn[0]))


def test_weights_of_classes_and_of_tasks_as_the_document_writes_them():
    """alpha of a rare class is larger, of mean 1 over the batch; w_t is what it is where it is not renormalized."""
    labels = torch.tensor([0, 0, 2])
    logits = torch.zeros(3, 3, requires_grad=True)
    equal, weighed = build(loss="focal"), build(loss="focal", class_weights="effective_number", beta=0.9)
    grads = [
        torch.autograd.grad(method._loss(0, TASKS[0], logits, labels, learn=False), logits)[0]
        for method in (equal, weighed)
    ]
    weights = torch.tensor([(1 - 0.9) / (1 - 0.9**n) for n in (40.0, 40.0, 4.0)])
    assert torch.allclose(grads[1], grads[0] * (weights / weights.mean())[:, None], atol=1e-6)
    made = build(loss="dynamic_balanced_focal", renormalized=False)
    for memory in made.memory:
        memory.rate.fill_(1.0)
    update = next(made.updates(batches(0)[0], None, 0.5))
    told = [float(value) for name, value in update.log.items() if name.startswith("w ")]
    assert len(told) == len(TASKS) and all(1 < weight <= 1 + made.knobs.kappa for weight in told)


def test_aggregated_gradients_lie_in_memory_as_their_parameters_do():
    """A fused optimizer reads both in memory's order, and would give a weight the gradient of another."""
    method = build(aggregator="pcgrad").to(memory_format=torch.channels_last)
    parameters = [*method.shared_encoder.parameters(), *method.task_classifier.parameters()]
    assert any(not value.is_contiguous() for value in parameters)
    before = [value.detach().clone() for value in parameters]
    next(method.updates(batches(0)[0], None, 0.5)).backward(parameters)
    torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0, fused=True).step()
    for value, old in zip(parameters, before, strict=True):
        moved = value.grad.abs() > 1e-6
        assert torch.equal((value - old).sign()[moved], -value.grad.sign()[moved])


def test_upgrad_harms_no_task():
    method = build(aggregator="upgrad")
    update = next(method.updates(batches(0)[0], None, 0.5))
    parameters = [parameter for parameter, _ in update.shared]
    rows = [rows for _, rows in update.shared]
    grads = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in update.of_tasks]
    update.backward(list(method.shared_encoder.parameters()))
    for row in grads:
        product = sum((g[:n] * p.grad[:n]).sum() for g, p, n in zip(row, parameters, rows, strict=True))
        assert product > -1e-5


def test_a_task_without_labels_drops_out_and_no_labels_at_all_do_no_harm():
    source, target = batches(0)
    labels = {name: torch.full_like(truth, -1) for name, truth in source.labels.items()}
    for kept in ([], ["direction"]):
        some = SourceBatch(source.images, labels | {name: source.labels[name] for name in kept})
        for knobs in ({}, {"aggregator": "upgrad"}, {"weighting": "relatedness"}, {"weighting": "famo"},
                      {"reading": "split"}, {"minority": 0.2}):  # fmt: skip
            method = build(**knobs)
            for update in walk(method, 1, source=some):
                assert update.loss.isfinite()
                assert [key for key in update.log if key.startswith("L ") and not key.startswith("L D")] == [
                    f"L {name}" for name in kept
                ]
            assert norm(method.task_classifier.of_task[1]) == 0
    only = SourceOnly(start(), SourceOnly.Knobs())
    assert float(next(only.updates(SourceBatch(source.images, labels), target, 0.0)).loss.detach()) == 0


def test_the_adversaries_pull_as_each_reading_says():
    """A small step against the gradient: the encoder raises its adversary's loss, and lowers that of its helper."""

    def task_loss(method, paths):
        truth = torch.arange(len(TASKS)).repeat(len(paths))
        return nn.functional.cross_entropy(method.discriminator(paths.flatten(0, 1))[1], truth)

    for reading, sign in (("adversarial", 1), ("acgan", -1)):
        method = build(reading=reading)
        method.discriminator.eval()
        source, _ = batches(0)
        with torch.no_grad():
            features, shared = method._encode(source, None)
        features.requires_grad_()
        loss, moves = method._game(features, shared, source, None, 0.5, {})
        loss.backward()
        assert moves == ("discriminator",) and norm(method.discriminator.task) > 0
        ends = method.trunk.ends
        before = task_loss(method, by_task(features.detach(), ends, len(TASKS)))
        after = task_loss(
            method, by_task(features.detach() - 1e-2 * features.grad / features.grad.norm(), ends, len(TASKS))
        )
        assert sign * float((after - before).detach()) > 0, reading
        if reading == "adversarial":  # reversed: -strength times the discriminator's own gradient
            again = features.detach().requires_grad_()
            plain = torch.autograd.grad(task_loss(method, by_task(again, ends, len(TASKS))), again)[0]
            assert torch.allclose(features.grad, -ramp(0.5) * plain, atol=1e-6)


def test_split_deceives_on_shared_channels_and_helps_on_private_ones():
    method = build(reading="split")
    source, target = batches(0)
    with torch.no_grad():
        features, shared = method._encode(source, target)
    features.requires_grad_(), shared.requires_grad_()
    log = {}
    loss, moves = method._game(features, shared, source, target, 0.5, log)
    loss.backward()
    assert moves == ("discriminator", "shared_discriminator")
    assert norm(method.discriminator) > 0 and norm(method.shared_discriminator) > 0
    assert shared.grad.abs().sum() > 0
    assert features.grad[:, : method.trunk.ends.shared].abs().sum() == 0 < features.grad.abs().sum()
    assert {"accuracy_D_task", "L_D_a", "L_D_shared"} <= log.keys()
    assert float(log["L_D_a"]) == pytest.approx(0.693, abs=0.15)


def test_rare_classes_get_features_of_their_own():
    method = build(minority=0.2)
    assert method.rare == [(0, 2)]
    before = [value.clone() for value in method.generator.parameters()]
    for update in walk(method, 3, target=False):
        assert {"generator", "feature_discriminator"} <= set(update.moves) and "accuracy_D_real" in update.log
        assert norm(method.generator) > 0 and norm(method.feature_discriminator) > 0
    assert any(not torch.equal(*pair) for pair in zip(before, method.generator.parameters(), strict=True))
    assert not build(minority=0.05).rare


def test_generated_features_are_remembered_ones_and_a_difference():
    """Also in steps that show no image of the class: heads learn it, and the generator from its discriminator alone."""
    method = build(minority=0.2)
    paths = torch.rand(12, len(TASKS), 20, requires_grad=True)
    source, _ = batches(0)
    truth = torch.zeros(12, dtype=torch.long)
    truth[[3, 7]] = 2
    source.labels["direction"] = truth
    method._minority(paths, source, {})
    assert torch.equal(method.remembered[0, :2], paths.detach()[[3, 7], 0])
    assert method.remembered[0, 2:].isnan().all()
    source.labels["direction"] = torch.zeros(12, dtype=torch.long)
    method.zero_grad()
    method._minority(paths, source, {}).backward()
    assert torch.equal(method.remembered[0, :2], paths.detach()[[3, 7], 0])
    assert paths.grad is None and norm(method.generator) > 0 and norm(method.feature_discriminator) > 0
    heads = method.task_classifier.of_task
    assert norm(heads[0]) > 0 and all(norm(head) == 0 for head in heads[1:])
    nn.init.zeros_(method.feature_discriminator.defect.weight)
    method.zero_grad()
    method._minority(paths, source, {}).backward()
    assert norm(method.generator) == 0 < norm(heads[0])


def test_what_balances_tasks_moves_at_a_rate_of_its_own():
    """At the networks' rate, weights would be where they begin after hundreds of steps."""
    for optimizer in ("adamw", "sgd"):
        config = Config(source=(), target=(), out=Path(), optimizer=optimizer, lr=1e-5, weight_decay=0.0)
        made = _optimizers(build(weighting="gradnorm"), config)
        assert type(made["balance"]) is torch.optim.Adam and made["balance"].param_groups[0]["lr"] == 0.025
        assert made["shared_encoder"].param_groups[0]["lr"] == 1e-5


def test_what_cannot_work_is_refused():
    with pytest.raises(UsageError, match="share no channels"):
        build("separate", aggregator="upgrad")
    with pytest.raises(UsageError, match="share no channels"):
        build("separate", weighting="relatedness")
    with pytest.raises(UsageError, match="shared and private"):
        build("hard", reading="split")
    with pytest.raises(UsageError, match="private channels"):
        build("hard", reading="acgan")
    with pytest.raises(UsageError, match="Leave --ratios out"):
        options = {"tasks": Path("tasks.yaml"), "method": "multitask", "sharing": "hard", "ratios": (0.5,)}
        check_tasks(Config(source=(), target=(), out=Path(), **options))
    with pytest.raises(UsageError, match="aggregator"):
        MultiTask.Knobs(aggregator="upgrad", weighting="famo")
    with pytest.raises(UsageError, match="hard"):
        MultiTask.Knobs(hard=0.5)


@pytest.mark.parametrize("kind", ["equal", "uncertainty", "dwa", "rlw", "famo"])
def test_the_weights_that_are_told_are_those_of_the_gradients(kind):
    method = build(weighting=kind)
    each = torch.linspace(0.2, 2.0, len(method.tasks), requires_grad=True)
    if kind == "famo":
        method.balance.logits.copy_(torch.linspace(-0.5, 0.5, len(each)))
    loss, weights = method._weigh(each, torch.ones(len(each)), list(range(len(each))))
    [gradient] = torch.autograd.grad(loss, each)
    assert torch.allclose(gradient / gradient.mean(), weights.detach(), atol=1e-4)


@pytest.mark.parametrize("knobs", [{"weighting": "famo"}, {"weighting": "gradnorm"}, {"weighting": "relatedness"},
                                   {"weighting": "dwa"}, {"aggregator": "pcgrad"}], ids=str)  # fmt: skip
def test_what_is_remembered_lies_in_the_state(knobs):
    """A method that goes on from another's state goes on as that one does."""
    knobs = knobs | {"loss": "dynamic_balanced_focal"}
    whole, resumed = build(**knobs), build(**knobs)
    for _ in walk(whole, 4):
        pass
    half = build(**knobs)
    for _ in walk(half, 2):
        pass
    resumed.load_state_dict(half.state_dict())
    for _ in walk(resumed, 2, first=2):
        pass
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[1] / "suites" / "tasks").glob("*.yaml")),
    ids=lambda path: path.stem,
)
def test_the_method_takes_every_setup_of_the_suites(path):
    """A setup that is refused ends a measurement after hours."""
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, setup in said.get("setups", {}).items():
        options = said.get("settings", {}) | (setup or {}).get("options", {})
        assert build(options.get("sharing", "progressive"), **options.get("knobs", {})).tasks == TASKS, name
