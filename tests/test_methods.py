import copy
import functools
import math
from contextlib import nullcontext
from dataclasses import fields, replace
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest
import torch
from torch import nn

from builders import CLASSES, SIDE, batches, tiny_encoder
from steelshift.data.stream import CLASS, TargetBatch
from steelshift.errors import UsageError
from steelshift.losses.domain import adaptation_loss, separation_loss
from steelshift.losses.unlabelled import entropy
from steelshift.methods import METHODS, bridge, cdan, dann, dsn, fixmatch, iadsa, mdd, shot
from steelshift.methods.class_sets import MARGIN, SEPARATION, ClassSet
from steelshift.methods.method import Start
from steelshift.nn.convolution import quicken
from steelshift.nn.encoders import Encoder, build_encoder
from steelshift.nn.heads import task_classifier
from steelshift.nn.normalization import LineBatchNorm, arrange, settle
from steelshift.training.precision import Fast

FEW = {"adsa_steps": (3, 1, 1, 1, 1)}
NORMALIZED = ("adabn", "tent")
"""Methods that adapt batch normalization."""
SOURCE_FREE = ("shot", "tent")
HELD = ("adda", *SOURCE_FREE)
"""Methods that do not train the task any further."""
VARIANTS = {name: (name, {}) for name in METHODS} | {
    "dan": ("dan", {"weight": 0.3}),  # with more of it a network that knows nothing yet learns nothing
    "cdan": ("cdan", {"entropy": False}),
    "cdan+e": ("cdan", {}),
    "cdan randomized": ("cdan", {"map": "randomized", "confusion_weight": 1.0}),
    "fixmatch": ("fixmatch", {"threshold": 0.0}),
    "dann fewer": ("dann", {"target_classes": "fewer"}),
    "dann more": ("dann", {"target_classes": "more"}),
    "iadsa claim9 fewer": ("iadsa", {"schedule": "claim9_sequential", "target_classes": "fewer"}),
    "iadsa adsa more": ("iadsa", {"schedule": "adsa", "target_classes": "more"} | FEW),
    "iadsa claim9": ("iadsa", {"schedule": "claim9_sequential"}),
    "iadsa adsa": ("iadsa", {"schedule": "adsa"} | FEW),
    "iadsa minmax": ("iadsa", {"separation_game": "minmax"}),
    "iadsa claim9 minmax": ("iadsa", {"schedule": "claim9_sequential", "separation_game": "minmax"}),
    "iadsa learned": ("iadsa", {"class_weight": "uncertainty", "adaptation_weight": "uncertainty"}),
    "iadsa dwa": ("iadsa", {"class_weight": "dwa", "adaptation_weight": "dwa"}),
    "iadsa means": ("iadsa", {"mean_task_loss": "ema", "mean_embedded_loss": "ema"}),
    "iadsa average": ("iadsa", {"averaging": "ema", "averaging_decay": 0.5}),
    "iadsa cdan": ("iadsa", {"adaptation": "cdan"}),
    "iadsa inverted": ("iadsa", {"adaptation": "inverted"}),
    "iadsa per sample": ("iadsa", {"class_weight": "per_sample", "negative": "all_pairs"}),
    "iadsa reconstruction": ("iadsa", {"separation_aux": "difference+recon"}),
    "iadsa reconstruction claim9": ("iadsa", {"separation_aux": "difference+recon", "schedule": "claim9_sequential"}),
}
ADAPTING = [name for name in VARIANTS if name not in ("source_only", "oracle")]


def build(name, knobs=None, encoder=None, normalization="joint", epoch=2, seed=1):
    encoder = encoder or tiny_encoder(normalized=name in NORMALIZED)
    torch.manual_seed(seed)
    method = METHODS[name]
    start = Start(encoder, task_classifier(encoder.width, CLASSES), normalization, epoch)
    small = {"hidden": 16} if "hidden" in {field.name for field in fields(method.Knobs)} else {}
    return method(start, method.Knobs(**small | (knobs or {}))).train()


def variant(name, **options):
    method, knobs = VARIANTS[name]
    return build(method, knobs, **options)


BF16 = Fast(torch.device("cpu"), True, torch.channels_last)


def walk(method, steps, *, first=0, autocast=False, rate=0.02, count=8, labels=None, batches=batches):
    """The loop in small: yields every update after its backward pass and before its step, with its step number."""
    optimizers = {
        name: torch.optim.SGD(moving, rate)
        for name, child in method.named_children()
        if (moving := [parameter for parameter in child.parameters() if parameter.requires_grad])
    }
    for step in range(first, first + steps):
        torch.manual_seed(step)
        source, target = batches(step, count, labels)
        if method.looks_at_target and step % 2 == 0:
            method.eval().look_at_target(batches(near, count)[1] for near in (step, step + 1))
            method.train()
        seen = source if method.sees_source else None, target if method.sees_target else None
        updates = method.updates(*seen, min(step / 20, 0.99))
        while True:
            with BF16.autocast() if autocast else nullcontext():
                update = next(updates, None)
            if update is None:
                break
            for child in method.children():
                child.zero_grad(set_to_none=True)
            update.loss.backward()
            assert update.loss.isfinite() and update.loss.shape == ()
            yield step, update
            for name in update.moves:
                nn.utils.clip_grad_norm_(method.get_submodule(name).parameters(), 5.0)
                optimizers[name].step()


def train(method, steps, **options):
    """All logs, one dict a step."""
    logs = {}
    for step, update in walk(method, steps, **options):
        logs.setdefault(step, {}).update(update.log)
    return [{key: float(value) for key, value in log.items()} for log in logs.values()]


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def parameters(module):
    return {key: value.detach().clone() for key, value in module.named_parameters()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def deployed(method):
    encoder, classifier = method.deployed()
    return torch.cat([value.detach().flatten() for module in (encoder, classifier) for value in module.parameters()])


# Every method.


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "sdat"])
def test_an_update_moves_exactly_what_it_names(name):
    method = variant(name)
    # The average moves by itself, after the updates of a step.
    children = {key: child for key, child in method.named_children() if not key.startswith("averaged")}

    def trained(child):
        return [parameter for parameter in child.parameters() if parameter.requires_grad]

    before, moves, moved = {key: parameters(child) for key, child in children.items()}, (), set()

    def check():
        for key, child in children.items():
            now = parameters(child)
            assert equal(now, before[key]) == (key not in moves or not now), key
            before[key] = now

    for _, update in walk(method, 2, first=3):
        if moves:
            check()
        moves = update.moves
        moved |= set(moves)
        assert set(moves) <= children.keys() and len(set(moves)) == len(moves)
        for key in moves:
            for parameter in trained(children[key]):
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
        for value in update.log.values():
            assert not value.requires_grad and value.shape == ()
    check()
    unmoved = set() if "learned" in name else {"class_pair", "adaptation_pair"}
    assert moved == {key for key, child in children.items() if trained(child) and key not in unmoved}


@pytest.mark.parametrize("name", [name for name in ADAPTING if name != "adabn"])
def test_no_method_moves_its_encoder_as_source_only_does(name):
    def encoder():
        return tiny_encoder(normalized=name in NORMALIZED)

    plain, other = build("source_only", encoder=encoder()), variant(name)
    assert equal(parameters(plain.shared_encoder), parameters(other.shared_encoder))
    for method in (plain, other):
        train(method, 3)
    start = parameters(encoder())
    for key, value in plain.shared_encoder.named_parameters():
        step = (value - start[key]).norm()
        difference = (value - other.shared_encoder.get_parameter(key)).norm()
        # A bias before normalization changes nothing and has no gradient.
        assert key == "trunk.0.bias" or (step > 0 and difference > 1e-4 * step), key


def test_the_oracle_is_source_only_under_another_name():
    plain, oracle = build("source_only"), build("oracle")
    train(plain, 3)
    train(oracle, 3)
    assert torch.equal(deployed(plain), deployed(oracle))


@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 0, 1, 1, 1, 1, 0],
        [2] * 8,
        [0, 1, 2, -1, -1, -1, 0, 1],
        [0, 1, 2, -1, -1, -1, -1, -1],
        [1, -1, -1, -1, -1, -1, -1, -1],
    ],
    ids=["a class is missing", "one class", "some unknown", "no class twice", "one label"],
)
@pytest.mark.parametrize("name", VARIANTS)
def test_odd_batches_are_survived(name, labels):
    method = variant(name)
    logs = train(method, 3, labels=labels)
    assert all(math.isfinite(value) for log in logs for value in log.values())
    assert deployed(method).isfinite().all()


@pytest.mark.parametrize("name", VARIANTS)
def test_training_runs_under_bf16_autocast(name):
    method = variant(name)
    logs = train(method, 4, autocast=True)
    assert all(math.isfinite(value) for log in logs for value in log.values())
    assert all(value.dtype != torch.bfloat16 for value in method.state_dict().values())
    exact = train(variant(name), 4)[0]
    values = {"lambda", "w", "omega_a", "omega_p", "MMD", "JMMD", "CORAL", "disparity", "discrepancy"}
    compared = [key for key in exact if key.startswith("L_") or key in values]
    assert compared
    for key in compared:
        assert logs[0][key] == pytest.approx(exact[key], rel=0.05, abs=0.01), key


@pytest.mark.parametrize("name", VARIANTS)
def test_all_that_moves_has_gradients_under_bf16_autocast(name):
    method, asked, reached = variant(name), set(), set()
    for _, update in walk(method, 4, autocast=True):
        asked |= set(update.moves)
        reached |= {
            child
            for child in update.moves
            if any(value.grad is not None and value.grad.any() for value in method.get_submodule(child).parameters())
        }
    assert reached == asked


@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_deployed_classifies(name):
    method = variant(name)
    train(method, 2)
    encoder, classifier = method.deployed()
    assert isinstance(encoder, Encoder) and isinstance(classifier, nn.Linear)
    with torch.no_grad():
        assert classifier.eval()(encoder.eval()(batches(0)[1].images)).shape == (8, CLASSES)


@pytest.mark.parametrize("name", VARIANTS)
def test_nothing_is_remembered_outside_of_the_state(name):
    method = variant(name)
    train(method, 5)
    fresh = variant(name, encoder=tiny_encoder(seed=9, normalized=name in NORMALIZED), seed=8)
    fresh.load_state_dict(copy.deepcopy(method.state_dict()), strict=True)
    assert train(method, 2, first=5) == train(fresh, 2, first=5)
    assert equal(weights(method), weights(fresh))


@pytest.mark.parametrize("name", VARIANTS)
def test_training_repeats_itself(name):
    first, second = variant(name), variant(name)
    assert train(first, 3) == train(second, 3)
    assert equal(weights(first), weights(second))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in HELD])
def test_training_lowers_the_task_loss(name):
    logs = train(variant(name), 80, rate=0.05, count=12)
    assert sum(log["L_task"] for log in logs[-5:]) < 0.8 * sum(log["L_task"] for log in logs[:5])


@pytest.mark.parametrize("name", ADAPTING)
def test_the_target_line_matters(name):
    method, other = variant(name), variant(name)
    for one, step in ((method, 0), (other, 1)):
        source, target = batches(0)[0], batches(step)[1]
        optimizer = torch.optim.SGD(one.parameters(), 0.02)
        torch.manual_seed(0)
        if one.looks_at_target:
            one.look_at_target([batches(step)[1], batches(step + 2)[1]])
        for update in one.updates(source, target, 0.5):
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
    assert not equal(weights(method.deployed()[0]), weights(other.deployed()[0]))


# What methods are for: a line whose images carry a grid that the source line has not, and more noise.


def shifted(truth, rng, grid, noise):
    """Images of the classes of `batches` under a grid of strength `grid` and noise of standard deviation `noise`."""
    at = torch.arange(SIDE)
    waves = [(0.5 * at).sin().expand(SIDE, SIDE), (0.5 * at).sin()[:, None].expand(SIDE, SIDE)]
    waves = torch.stack([*waves, (0.5 * (at + at[:, None])).sin()])
    grain = noise * torch.randn(len(truth), SIDE, SIDE, generator=rng)
    return (90 + 60 * (waves[truth] + grid * (1.3 * at).sin()) + grain).clamp(0, 255).unsqueeze(1)


def on_shifted(method, grid, noise):
    """Accuracy of what is deployed on 300 images of the shifted line."""
    rng = torch.Generator().manual_seed(77)
    truth = torch.randint(0, CLASSES, (300,), generator=rng)
    encoder, classifier = copy.deepcopy(method.deployed())
    settle(encoder, method.line)
    with torch.no_grad():
        answers = classifier.eval()(encoder.eval()(shifted(truth, rng, grid, noise))).argmax(1)
    return (answers == truth).float().mean().item()


def adapted(name, knobs, grid, noise, normalized, steps):
    """`steps` of a method from a network trained on the source line, with unlabelled images of the shifted one."""

    def lines(step, count, labels=None):
        rng = torch.Generator().manual_seed(9000 + step)
        target = shifted(torch.randint(0, CLASSES, (count,), generator=rng), rng, grid, noise)
        return batches(step, count)[0], TargetBatch(target, target)

    trained = build("source_only", encoder=tiny_encoder(normalized=normalized))
    train(trained, 60, rate=0.05, count=12)
    torch.manual_seed(1)
    start = Start(trained.shared_encoder, trained.task_classifier, "joint", 2)
    kind = METHODS[name]
    wide = {"hidden": 64} if "hidden" in {field.name for field in fields(kind.Knobs)} else {}
    method = kind(start, kind.Knobs(**wide | knobs)).train()
    for _ in walk(method, steps, rate=0.05, count=12, batches=lines):
        pass
    return on_shifted(method, grid, noise)


GRID, NOISE = (1.5, 60.0, False), (0.0, 200.0, True)
"""Strength of the grid and of the noise, and whether the network normalizes."""
REACHING = {name: ({}, GRID) for name in METHODS if name not in ("source_only", "oracle", "tent")} | {
    "mcd": ({}, (1.0, 90.0, False)),
    "fixmatch": ({"threshold": 0.99}, (1.5, 60.0, True)),
    "adabn": ({}, NOISE),
}
source_only_on = functools.cache(functools.partial(adapted, "source_only", {}))


@pytest.mark.parametrize("name", REACHING)
def test_methods_reach_a_line_that_source_only_does_not(name):
    knobs, line = REACHING[name]
    before = source_only_on(*line, steps=120)
    assert 0.4 < before < 0.95
    assert adapted(name, knobs, *line, steps=120) > before + 0.035


def test_tent_improves_a_network_in_few_steps_at_test_time():
    before = source_only_on(*NOISE, steps=0)
    assert adapted("tent", {}, *NOISE, steps=20) > before + 0.02


# The adversarial gradient.


def encoder_gradient(method, progress):
    torch.manual_seed(0)
    source, target = batches(0)
    update = next(method.updates(source, target, progress))
    method.zero_grad(set_to_none=True)
    update.loss.backward()
    found = {}
    for name in ("shared_encoder", "adversary" if hasattr(method, "adversary") else "adaptation_discriminator"):
        found[name] = torch.cat([parameter.grad.flatten() for parameter in method.get_submodule(name).parameters()])
    return found


@pytest.mark.parametrize(
    ("name", "module", "weighted", "progress", "strength"),
    [
        ("dann", dann, lambda weight: {"weight": weight}, 0.1, 0.4621),
        ("dann", dann, lambda weight: {"weight": 3 * weight}, 0.25, 3 * 0.8483),
        (
            "iadsa",
            iadsa,
            lambda w: {"adaptation_weight": "fixed", "fixed_weights": (w, 0.05), "ramp": True},
            0.1,
            0.4621,
        ),
        ("iadsa", iadsa, lambda w: {"adaptation_weight": "fixed", "fixed_weights": (w, 0.0), "ramp": False}, 0.1, 1.0),
        ("adsa", iadsa, lambda w: {"fixed_weights": (w, 0.05), "ramp": True}, 0.25, 0.8483),
        ("cdan", cdan, lambda weight: {"weight": weight}, 0.25, 0.8483),
        ("mdd", mdd, lambda weight: {"weight": weight}, 0.25, 0.8483),
        ("bridge", bridge, lambda weight: {"weight": weight, "self_weight": 0.0, "restyled": 0.0}, 0.25, 0.8483),
        ("dsn", dsn, lambda weight: {"gamma": weight}, 0.25, 0.8483),
    ],
)
def test_reversal_negates_what_adaptation_asks_of_the_encoder(monkeypatch, name, module, weighted, progress, strength):
    def gradient(weight):
        ramped = {"ramp": True} if module is iadsa else {}
        return encoder_gradient(build(name, {"dropout": 0.0} | ramped | weighted(weight)), progress)

    without, reversed_ = gradient(0.0), gradient(1.0)
    monkeypatch.setattr(module, "reverse", lambda features, strength: features)
    plain = gradient(1.0)
    asked = (plain["shared_encoder"] - without["shared_encoder"]).double()
    given = (reversed_["shared_encoder"] - without["shared_encoder"]).double()
    assert asked.norm() > 1e-4
    assert torch.allclose(given, -strength * asked, atol=float(asked.norm()) * 1e-3)
    [adversary] = plain.keys() - {"shared_encoder"}
    assert torch.allclose(plain[adversary], reversed_[adversary], atol=1e-6) and plain[adversary].any()


@pytest.mark.parametrize("adaptation", ["cross_entropy", "inverted"])
def test_class_weights_reach_the_encoder_through_every_form_of_adaptation(adaptation):
    gradients = []
    for kind in ("same", "fewer"):
        method = build("iadsa", {"adaptation": adaptation, "target_classes": kind, "dropout": 0.0})
        method.class_set.mean_answer.copy_(torch.tensor([0.9, 0.05, 0.05]))
        z = torch.randn(2, 6, method.shared_encoder.width, generator=torch.Generator().manual_seed(0))
        z_cs, z_ct = z[0].requires_grad_(), z[1].requires_grad_()
        labels = torch.tensor([0, 1, 2] * 2)
        method._adaptation_loss(z_cs, z_ct, labels, 1.0, torch.tensor(1.0))[0].backward()
        gradients.append(z_cs.grad.norm(dim=1))
    same, fewer = gradients
    assert (fewer[labels == 0] > same[labels == 0]).all() and (fewer[labels != 0] < same[labels != 0]).all()


def test_inverted_labels_pull_the_encoder_the_same_way_as_reversal():
    knobs = {"dropout": 0.0, "ramp": False, "adaptation_weight": "fixed"}

    def gradient(kind, weight):
        return encoder_gradient(build("iadsa", knobs | {"adaptation": kind, "fixed_weights": (weight, 0.0)}), 0.0)

    pulls = [
        gradient(kind, 1.0)["shared_encoder"] - gradient(kind, 0.0)["shared_encoder"]
        for kind in ("cross_entropy", "inverted")
    ]
    assert torch.cosine_similarity(*pulls, dim=0) > 0.9


@pytest.mark.parametrize("literal", [False, True])
def test_omega_reaches_the_discriminator_only_where_the_table_is_taken_literally(literal):
    def gradient(omega):
        weights = {
            "ramp": True,
            "adaptation_weight": "fixed",
            "fixed_weights": (omega, 0.05),
            "omega_on_discriminator": literal,
        }
        return encoder_gradient(build("iadsa", {"dropout": 0.0} | weights), 0.5)

    one, half = gradient(1.0), gradient(0.5)
    share = 0.5 if literal else 1.0
    assert torch.allclose(half["adaptation_discriminator"], share * one["adaptation_discriminator"], atol=1e-6)


def adaptation_of(method, step):
    """L_adapt of a method on the batches of a step, computed here."""
    with torch.no_grad():
        shared = [method.shared_encoder(batch.images) for batch in batches(step)]
        smoothing = getattr(method.knobs, "adaptation_smoothing", 0.0)
        return adaptation_loss(*map(method.adaptation_discriminator, shared), smoothing).item()


def separation_of(method, step):
    """L_sep likewise."""
    source, target = batches(step)
    with torch.no_grad():
        features = [method.shared_encoder(images) for images in (source.images, target.images)]
        features += [method.source_encoder(source.images), method.target_encoder(target.images)]
        return separation_loss(method.separation_discriminator(torch.cat(features)), 8).item()


def change(method, child, value):
    """By how much a small step of one child alone, down the gradient that an update left, changes a value."""
    gradients = [parameter.grad for parameter in method.get_submodule(child).parameters()]
    tried = copy.deepcopy(method)
    with torch.no_grad():
        for parameter, slope in zip(tried.get_submodule(child).parameters(), gradients, strict=True):
            parameter -= 1e-2 * slope / sum(float(each.norm()) for each in gradients)
    return value(tried) - value(method)


@pytest.mark.parametrize("schedule", ["joint", "claim9_sequential", "adsa"])
@pytest.mark.parametrize("game", ["coop", "minmax"])
def test_the_separation_discriminator_descends_or_ascends(schedule, game):
    method = build("iadsa", {"dropout": 0.0, "separation_game": game, "schedule": schedule} | FEW)
    changes = []
    for step, update in walk(method, 4, rate=0.1):
        if "separation_discriminator" in update.moves:
            changes.append(change(method, "separation_discriminator", lambda m, step=step: separation_of(m, step)))
            if game == "minmax":
                assert update.moves == ("separation_discriminator",)
                assert all(parameter.grad is None for parameter in method.shared_encoder.parameters())
    assert len(changes) == 4
    assert all(each > 0 if game == "minmax" else each < 0 for each in changes)


@pytest.mark.parametrize("name", ["dann", "adsa", "iadsa", "iadsa claim9", "iadsa adsa", "iadsa inverted"])
def test_the_adaptation_discriminator_descends(name):
    method, knobs = VARIANTS[name]
    method = build(method, knobs | {"dropout": 0.0})
    changes = [
        change(method, "adaptation_discriminator", lambda m, step=step: adaptation_of(m, step))
        for step, update in walk(method, 4, rate=0.1)
        if "adaptation_discriminator" in update.moves
    ]
    assert len(changes) >= 4 and all(each < 0 for each in changes)


def test_adsa_takes_the_steps_of_its_authors():
    moves = [update.moves for _, update in walk(build("iadsa", {"schedule": "adsa"}), 1)]
    assert moves[:40] == [("adaptation_discriminator",)] * 40
    assert moves[40:42] == [("separation_discriminator",)] * 2
    assert moves[42:46] == [("shared_encoder",)] * 4
    assert moves[46:48] == [("shared_encoder", "source_encoder", "target_encoder")] * 2
    assert moves[48:] == [("shared_encoder", "task_classifier", "source_encoder", "target_encoder")]
    knobs = METHODS["adsa"].Knobs()
    assert (knobs.embedding, knobs.adaptation_weight, knobs.fixed_weights) == ("none", "fixed", (1.0, 0.05))
    assert (knobs.adaptation_smoothing, knobs.separation_smoothing) == (0.1, 0.2)


def test_claim9_takes_three_updates_in_the_order_of_the_claim():
    moves = [update.moves for _, update in walk(build("iadsa", {"schedule": "claim9_sequential"}), 1)]
    assert moves == [
        ("shared_encoder", "task_classifier"),
        ("shared_encoder", "adaptation_discriminator"),
        ("shared_encoder", "source_encoder", "target_encoder", "separation_discriminator"),
    ]


# What single methods promise.


def test_adabn_trains_as_source_only_and_normalizes_as_the_target_line_does():
    plain, other = build("source_only", encoder=tiny_encoder(normalized=True)), build("adabn")
    for method in (plain, other):
        train(method, 40, rate=0.0)
    [of_source] = [layer for layer in plain.deployed()[0].modules() if isinstance(layer, nn.BatchNorm2d)]
    [lines] = [layer for layer in other.deployed()[0].modules() if isinstance(layer, LineBatchNorm)]
    assert torch.allclose(lines.source.running_mean, of_source.running_mean)
    seen = []
    other.shared_encoder.trunk[0].register_forward_hook(lambda module, _, values: seen.append(values.detach()))
    with torch.no_grad():
        for step in range(40):
            other.shared_encoder(batches(step)[1].images)
    truth = torch.cat(seen).mean((0, 2, 3))
    assert (lines.target.running_mean - truth).norm() < 0.2 * (lines.source.running_mean - truth).norm()
    for method in (plain, other):
        train(method, 5)
    for key, value in plain.task_classifier.named_parameters():
        assert torch.equal(value, other.task_classifier.get_parameter(key))
    [lines] = [layer for layer in other.deployed()[0].modules() if isinstance(layer, LineBatchNorm)]
    assert torch.equal(lines.source.weight, lines.target.weight) and torch.equal(lines.source.bias, lines.target.bias)


def test_adabn_deploys_statistics_of_the_network_that_it_deploys():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 5, stride=4, padding=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.BatchNorm2d(8),
    ]
    encoder = Encoder(quicken(nn.Sequential(*layers, nn.Flatten()), SIDE), SIDE)
    method = build("adabn", encoder=encoder)
    train(method, 3)
    first = next(module for module in method.shared_encoder.modules() if isinstance(module, LineBatchNorm))
    with torch.no_grad():  # as if training had moved them far
        first.source.weight.mul_(3)
        first.source.bias.add_(1)
    train(method, 60, first=60, rate=0.0)
    deployed_encoder = copy.deepcopy(method.deployed()[0])
    settle(deployed_encoder)
    seen = []
    deployed_encoder.trunk[3].register_forward_hook(lambda module, _, values: seen.append(values))
    with torch.no_grad():
        for step in range(60, 120):
            deployed_encoder.eval()(batches(step)[1].images)
    last = [module for module in deployed_encoder.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    truth = torch.cat(seen)
    assert ((last.running_mean - truth.mean((0, 2, 3))).abs() < 0.1 * truth.std((0, 2, 3))).all()


@pytest.mark.parametrize("name", NORMALIZED)
def test_methods_of_batch_normalization_refuse_an_encoder_without_it(name):
    with pytest.raises(UsageError) as caught:
        build(name, encoder=tiny_encoder())
    assert caught.value.key == "method_needs_normalization"


@pytest.mark.parametrize("name", SOURCE_FREE)
def test_source_free_methods_need_no_source_image(name):
    method = build(name, encoder=tiny_encoder(normalized=True))
    [update] = method.updates(None, batches(0)[1], 0.0)
    update.loss.backward()
    assert update.loss.isfinite()


def test_tent_moves_scale_and_offset_of_normalization_alone():
    method = build("tent")
    before = parameters(method)
    train(method, 3)
    moved = {key for key, value in parameters(method).items() if not torch.equal(value, before[key])}
    assert moved == {"shared_encoder.trunk.1.weight", "shared_encoder.trunk.1.bias"}


@pytest.mark.parametrize("name", METHODS)
def test_what_never_sees_a_line_says_so(name):
    method_class = METHODS[name]
    assert method_class.sees_source == (name not in SOURCE_FREE)
    assert method_class.sees_target == (name not in ("source_only", "oracle"))


def test_shot_labels_by_the_centroids_of_its_definition():
    method = build("shot")
    shown = [batches(step)[1] for step in range(3)]
    method.eval().look_at_target(iter(shown))
    with torch.no_grad():
        features = torch.cat([method.shared_encoder(batch.images) for batch in shown])
        weights = method.task_classifier(features).softmax(1)
    points = [
        torch.cat([feature, torch.ones(1)]) / math.sqrt(float(feature.square().sum()) + 1) for feature in features
    ]

    def nearest(point, centroids):
        return max(set(taken), key=lambda k: float(torch.cosine_similarity(point, centroids[k], dim=0)))

    taken = weights.argmax(1).tolist()
    first = [sum(weights[i, k] * point for i, point in enumerate(points)) / weights[:, k].sum() for k in range(CLASSES)]
    called = [nearest(point, first) for point in points]
    for k in range(CLASSES):
        members = [point for point, label in zip(points, called, strict=True) if label == k]
        wanted = sum(members) if members else torch.zeros(17)
        assert torch.allclose(method.centroids[k], wanted, atol=1e-4)


def test_a_class_that_no_image_is_taken_for_is_never_a_pseudo_label():
    method = build("shot")
    with torch.no_grad():
        method.task_classifier.bias[1] = -9.0  # far, and still the probability is not zero
    method.look_at_target([batches(step)[1] for step in range(3)])
    assert not method.centroids[1].any() and method.centroids[[0, 2]].any()


def test_a_class_without_a_centroid_is_never_the_nearest():
    centroids = torch.zeros(3, 17)
    centroids[1] = 1.0
    assert (shot._nearest(-torch.rand(6, 17), centroids) == 1).all()


def test_sdat_steps_from_where_it_stood_by_the_gradient_above():
    method = build("sdat", {"rho": 0.1, "dropout": 0.0})
    start, above, slopes = parameters(method), None, None
    updates = method.updates(*batches(0), 0.5)
    for update in updates:
        method.zero_grad(set_to_none=True)
        update.loss.backward()
        if update.moves:
            above, slopes = parameters(method), {k: p.grad.clone() for k, p in method.named_parameters()}
            with torch.no_grad():
                for parameter in method.parameters():
                    parameter -= 0.01 * parameter.grad
        else:
            task = {k: p.grad.clone() for k, p in method.named_parameters() if p.grad is not None}
            assert not any(key.startswith("adaptation") for key in task)
    climbed = torch.cat([(above[key] - start[key]).flatten() for key in start])
    asked = torch.cat([task.get(key, torch.zeros_like(start[key])).flatten() for key in start])
    assert climbed.norm() == pytest.approx(0.1, rel=1e-3)
    assert torch.cosine_similarity(climbed, asked, dim=0) > 0.999
    for key, value in parameters(method).items():
        assert torch.allclose(value, start[key] - 0.01 * slopes[key], atol=1e-6), key


def test_mcd_drives_its_classifiers_apart_and_the_encoder_between_them():
    method = build("mcd")

    def apart(tried):
        with torch.no_grad():
            return float(tried._apart(tried.shared_encoder(batches(0)[1].images)))

    kinds = []
    assert [update.moves[1:] for _, update in walk(method, 2)] == [("task_classifier", "second_classifier")] * 2
    for _, update in walk(method, 1, first=2, rate=0.05):
        kinds.append(update.moves)
        if update.moves == ("task_classifier", "second_classifier"):
            assert sum(change(method, child, apart) for child in update.moves) > 0
        if update.moves == ("shared_encoder",):
            assert change(method, "shared_encoder", apart) < 0
    both = ("task_classifier", "second_classifier")
    assert kinds == [("shared_encoder", *both), both] + [("shared_encoder",)] * 4
    encoder, classifier = method.deployed()
    z = encoder(batches(0)[1].images)
    assert torch.allclose(classifier(z), (method.task_classifier(z) + method.second_classifier(z)) / 2, atol=1e-5)


def test_learned_weights_survive_several_joint_updates_a_step():
    knobs = {"schedule": "adsa", "adsa_steps": (1, 1, 1, 1, 2), "adaptation_weight": "uncertainty"}
    train(build("iadsa", knobs), 2)


def test_adda_drops_nothing_that_the_source_encoder_keeps():
    method = build("adda")
    method.shared_encoder.trunk.append(nn.Dropout(0.5))
    images = batches(0)[1].images
    next(method.train().updates(*batches(0), 0.0))
    assert torch.equal(method.shared_encoder(images), method.shared_encoder(images))
    assert method.shared_encoder.training and method.momentum == 0.5


def test_adda_leaves_the_source_encoder_and_the_classifier_as_they_were():
    method = build("adda")
    source, classifier = weights(method.source_encoder), weights(method.task_classifier)
    train(method, 3)
    assert equal(source, weights(method.source_encoder)) and equal(classifier, weights(method.task_classifier))
    assert not equal(source, weights(method.shared_encoder))


def test_bridge_without_its_own_parts_is_dann():
    alone = {"confusion_weight": 0.0, "self_weight": 0.0, "averaging_decay": 0.0, "restyled": 0.0}
    one, other = build("dann"), build("bridge", alone)
    train(one, 3)
    train(other, 3)
    assert equal(weights(one.shared_encoder), weights(other.shared_encoder))
    assert equal(weights(other.deployed()[0]), weights(other.shared_encoder))


def test_bridge_learns_from_restyled_source_images(monkeypatch):
    monkeypatch.setattr(bridge, "restyle", lambda source, target: torch.full_like(source, 200.0))
    source, target = batches(0)
    method = build("bridge", {"restyled": 1.0})
    assert (method._restyled(source.images, target.weak) == 200).all()
    half = (build("bridge")._restyled(source.images.repeat(40, 1, 1, 1), target.weak) == 200).flatten(1).all(1)
    assert 0.4 < half.float().mean() < 0.6
    with torch.no_grad():
        [update] = list(method.updates(source, target, 0.0))[:1]
        logits = method.task_classifier(method.shared_encoder(torch.full_like(source.images, 200.0)))
    wanted = torch.nn.functional.cross_entropy(logits.float(), source.labels[CLASS])
    assert update.log["L_task"].item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize("name", ["bridge", "fixmatch"])
def test_teachers_see_target_images_in_their_own_light(name, monkeypatch):
    source, target = batches(0)
    target = TargetBatch(target.images, (target.images + 40).clamp(max=255))
    seen = []
    monkeypatch.setattr({"bridge": bridge, "fixmatch": fixmatch}[name], "strong_view", lambda x: seen.append(x) or x)
    method = build(name)
    if name == "bridge":
        method.averaged_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        monkeypatch.setattr(bridge, "restyle", lambda one, other: seen.append(other) or one)
    list(method.updates(source, target, 0.5))
    wanted = (
        [target.weak] if name == "fixmatch" else [method.shared_encoder.even(target.weak), target.weak, target.weak]
    )
    assert len(seen) == len(wanted)
    assert all(torch.equal(one, other) for one, other in zip(seen, wanted, strict=True))


def test_bridge_asks_less_of_classes_that_its_average_finds_seldom():
    method = build("bridge")
    train(method, 5)
    target = batches(9)[1]
    answers = method.averaged_classifier.eval()(method.averaged_encoder.eval()(target.images)).softmax(1)
    largest = 0.9 * method.mean_largest + 0.1 * answers.max(1).values.mean()
    mean = 0.9 * method.mean_answer + 0.1 * answers.mean(0)
    least = [float(largest * mean[k] / mean.max()) for k in range(CLASSES)]
    wanted = [float(row.max()) >= least[int(row.argmax())] for row in answers]
    assert method._self_training(target.images)[1].item() == pytest.approx(sum(wanted) / len(wanted))
    assert min(least) < max(least) == pytest.approx(float(largest))


def test_source_classes_that_the_target_lacks_come_to_weigh_less():
    chosen = ClassSet("fewer", 3)
    labels = torch.tensor([0, 1, 2, -1])
    assert chosen.source_weights(labels).tolist() == [1, 1, 1, 1]
    answers = torch.tensor([[9.0, 0, 0], [0, 9.0, 0]])  # never the third
    for _ in range(200):
        chosen.remember(answers)
    weights = chosen.source_weights(labels)
    assert weights.mean() == pytest.approx(1) and weights[2] < 0.05 * weights[0]
    assert weights[0] == pytest.approx(float(weights[1]), rel=0.01) and weights[3] >= weights[0]
    logits = torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0.5, 0, 0], [0, 0, 0]])
    # The mean over labelled images where each counts by its weight; those without a label change nothing.
    p = logits.softmax(1)
    wanted = -sum(float(weights[i] * p[i, i].log()) for i in range(3)) / float(weights[:3].sum())
    assert chosen.task_loss(logits, labels) == pytest.approx(wanted)
    twice = chosen.task_loss(torch.cat([logits, logits[3:]]), torch.cat([labels, labels[3:]]))
    assert twice == pytest.approx(wanted)
    chosen.remember(torch.tensor([[0, 0, 9.0]]))
    assert chosen.source_weights(labels)[2] > weights[2]


def test_target_images_of_no_class_weigh_less_and_are_driven_to_say_so():
    chosen = ClassSet("more", 4)
    logits = torch.tensor([[4.0, 0, 0, 0], [0.5, 0, 0, 0], [2.0, 0, 0, 0]], requires_grad=True)
    sure, spread, between = chosen.target_weights(logits).tolist()
    assert 1 > sure > between > spread > 0
    entropies = entropy(logits)
    half = math.log(4) / 2
    assert entropies[0] < half < entropies[1] and abs(entropies[2] - half) < MARGIN * math.log(4)
    (chosen.separation(logits) / SEPARATION).backward()
    # One step down the gradient: the sure one surer, the spread one more spread, the one between as it was.
    after = entropy(logits.detach() - 0.1 * logits.grad)
    assert after[0] < entropies[0] and after[1] > entropies[1] and after[2] == entropies[2]
    for kind in ("same", "fewer"):
        assert ClassSet(kind, 4).separation(logits) == 0
        assert ClassSet(kind, 4).target_weights(logits).tolist() == [1, 1, 1]


def test_fixmatch_takes_only_what_it_is_sure_of():
    logs = [train(build("fixmatch", {"threshold": level}), 1)[0] for level in (0.0, 1.0)]
    assert logs[0]["taken"] == 1 and logs[0]["L_pseudo"] > 0
    assert logs[1]["taken"] == 0 and logs[1]["L_pseudo"] == 0


def test_fixmatch_counts_each_pseudo_label_by_itself(monkeypatch):
    monkeypatch.setattr(fixmatch, "strong_view", lambda images: images)
    source, target = batches(0)
    with torch.no_grad():
        plain = build("fixmatch")
        answers = plain.task_classifier(plain.shared_encoder(target.images)).softmax(1)
    threshold = float(answers.max(1).values.median()) - 1e-6
    sure = [row for row in answers if row.max() >= threshold]
    assert 0 < len(sure) < len(answers)
    method = build("fixmatch", {"threshold": threshold})
    [update] = method.updates(source, target, 0.5)
    wanted = sum(-math.log(float(row.max())) for row in sure) / len(answers)
    assert update.log["L_pseudo"].item() == pytest.approx(wanted, rel=1e-4)


# Normalization by line.


@pytest.mark.parametrize("name", [name for name in ADAPTING if name != "iadsa reconstruction"])
@pytest.mark.parametrize("kind", ["joint", "separate", "domain-specific"])
def test_methods_run_with_every_normalization(name, kind):
    encoder = tiny_encoder(normalized=True)
    arrange(encoder, kind, "tiny")
    method = variant(name, encoder=encoder, normalization=kind)
    train(method, 2)
    assert deployed(method).isfinite().all()


@pytest.mark.parametrize("name", ADAPTING)
def test_layers_of_a_line_see_that_line_alone(name, monkeypatch):
    for module in (fixmatch, bridge):  # whose strong views may be inverted
        monkeypatch.setattr(module, "strong_view", lambda images: images)
    encoder = tiny_encoder(normalized=True)
    arrange(encoder, "domain-specific", "tiny")
    method = variant(name, encoder=encoder, normalization="domain-specific")
    shown, used = [], []
    # The source line of these batches is the brighter one.
    method.shared_encoder.register_forward_pre_hook(
        lambda _, values: shown.append("source" if values[0].detach().mean() > 120 else "target")
    )
    for module in method.shared_encoder.modules():
        if isinstance(module, LineBatchNorm):
            for line in ("source", "target"):
                getattr(module, line).register_forward_pre_hook(lambda *_, line=line: used.append((line, shown[-1])))
    train(method, 2, first=2)  # before, MCD does not look at the target
    of_source = set() if name in HELD else {("source", "source")}
    assert set(used) == {("target", "target")} | of_source


# IADSA's first step and its knobs.


@pytest.mark.parametrize("seed", range(3))
def test_the_first_step_is_what_the_text_expects(seed):
    torch.manual_seed(seed)
    start = Start(build_encoder("alexnet", 64), task_classifier(256, CLASSES), "joint", 5)
    method = METHODS["iadsa"](start, METHODS["iadsa"].Knobs()).train()
    log = {key: float(value) for key, value in next(method.updates(*batches(0, side=64), 0.0)).log.items()}
    assert abs(log["L_adapt"] - math.log(2)) < 0.05
    assert 1.0 < log["L_sep"] < 1.15
    assert log["lambda"] == 1 and log["w"] == 1
    assert log["omega_a"] == pytest.approx(0.387, abs=0.02) and log["omega_p"] == pytest.approx(1 - log["omega_a"])


def test_weights_wake_up_after_the_first_epoch():
    logs = train(build("iadsa", REFERENCE, epoch=3), 8)
    assert [log["lambda"] for log in logs[:3]] == [1, 1, 1] and [log["w"] for log in logs[:3]] == [1, 1, 1]
    assert logs[3]["lambda"] == pytest.approx(0.5, abs=1e-5)
    mean = sum(log["L_embedded"] for log in logs[:3]) / 3
    assert logs[3]["w"] == pytest.approx(min(0.9, max(0.1, math.exp(-1 / mean))), abs=1e-5)
    assert 0 < logs[6]["lambda"] < 1 and logs[6]["lambda"] != logs[3]["lambda"]


REFERENCE = {
    "t_min": 0.0, "w_bounds": (0.1, 0.9), "ramp": True, "averaging": "none", "averaging_decay": 0.99,
    "normalized": True, "dropout": 0.0,
}  # fmt: skip
"""What the changes below depart from, besides defaults: the text's readings, whatever the defaults are."""
NEAREST, FARTHEST = {"negative": "nearest"}, {"positive": "farthest"}
"""What leaves no draw to chance, so that a changed choice, and no changed draw, makes the difference."""
# Knob, value, and the other knobs without which it says nothing.
CHANGES = [
    ("schedule", "claim9_sequential", {}), ("schedule", "adsa", FEW),
    ("adsa_steps", (2, 1, 1, 1, 1), {"schedule": "adsa"}),
    ("embedding", "linear", {}), ("embedding", "none", {}),
    ("pull", 1.0, {}), ("pull", "auto", {"pull": 0.5}),
    ("mean_task_loss", "ema", {}), ("mean_task_loss", "batch", {}),
    ("t_min", 1.0, {}),
    ("positive", "farthest", NEAREST), ("positive", "centroid", NEAREST),
    ("negative", "nearest", FARTHEST), ("negative", "semihard", FARTHEST), ("negative", "all_pairs", FARTHEST),
    ("negative", "semihard", FARTHEST | NEAREST), ("negative", "semihard", NEAREST | {"positive": "centroid"}),
    ("invalid", "drop", NEAREST | FARTHEST), ("detach_features", True, {}),
    *[("class_weight", kind, {}) for kind in
      ("loss_ratio", "inverse_ratio", "exp_neg", "per_sample", "uncertainty", "dwa", "sum")],
    ("beta", 0.5, {}), ("beta", 0.5, {"adaptation_weight": "hdml", "embedding": "none"}),
    ("mean_embedded_loss", "ema", {}), ("mean_embedded_loss", "batch", {}), ("w_bounds", (0.7, 0.8), {}),
    *[("adaptation", kind, {}) for kind in ("value_function", "inverted", "cdan")],
    ("adaptation_smoothing", 0.1, {}),
    ("separation_game", "minmax", {}), ("separation_labels", "two_way", {}), ("separation_reduction", "per_term", {}),
    ("separation_smoothing", 0.2, {}),
    ("separation_aux", "difference", {}), ("separation_aux", "difference+recon", {}),
    ("difference_weight", 0.5, {"separation_aux": "difference"}),
    ("reconstruction_weight", 0.5, {"separation_aux": "difference+recon"}),
    *[("adaptation_weight", kind, {}) for kind in ("hdml", "daan", "uncertainty", "dwa", "fixed")],
    ("adaptation_control", "adaptation", {"adaptation_weight": "hdml"}),
    ("fixed_weights", (1.0, 0.5), {"adaptation_weight": "fixed"}),
    ("fixed_weights", (0.5, 0.05), {"adaptation_weight": "fixed"}),
    ("weight_total", 2.0, {}), ("ramp", False, {}), ("omega_on_discriminator", True, {}),
    ("averaging", "ema", {}), ("averaging_decay", 0.5, {"averaging": "ema"}),
    ("hidden", 12, {}), ("dropout", 0.4, {}), ("normalized", False, {}),
    ("target_classes", "fewer", {}), ("target_classes", "more", {}),
]  # fmt: skip


def named_values(hint):
    """Every value that a type lists."""
    if hint is bool:
        return {True, False}
    if get_origin(hint) is Literal:
        return set(get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return set().union(*map(named_values, get_args(hint)))
    return set()


def test_every_value_of_every_knob_is_tried():
    knobs = METHODS["iadsa"].Knobs
    hints, default = get_type_hints(knobs), knobs(**REFERENCE)
    tried = {}
    for name, value, _ in CHANGES:
        tried.setdefault(name, set()).add(value)
    assert tried.keys() == {field.name for field in fields(knobs)}
    for name, values in tried.items():
        assert named_values(hints[name]) - {getattr(default, name)} <= values, name
        assert values - {getattr(default, name)}, name
    assert any(named_values(hint) for hint in hints.values())


@functools.cache
def six_steps(knobs):
    method = build("iadsa", REFERENCE | dict(knobs))
    logs = train(method, 6, count=12, rate=0.1)
    assert all(math.isfinite(value) for log in logs for value in log.values())
    return deployed(method)


@pytest.mark.parametrize(("name", "value", "others"), CHANGES, ids=[f"{change[0]}={change[1]}" for change in CHANGES])
def test_every_value_of_a_knob_trains_and_makes_a_difference(name, value, others):
    base = six_steps(tuple(others.items()))
    changed = six_steps(tuple((others | {name: value}).items()))
    assert changed.isfinite().all()
    start = deployed(build("iadsa"))
    assert (changed - start).norm() > 0 and (changed - base).norm() > 1e-4 * (base - start).norm()


WRONG = [
    ("iadsa", {"pull": 0.0}), ("iadsa", {"pull": -1.0}), ("iadsa", {"pull": math.nan}), ("iadsa", {"beta": 0.0}),
    ("iadsa", {"t_min": -0.1}), ("iadsa", {"t_min": 1.1}), ("iadsa", {"w_bounds": (0.9, 0.1)}),
    ("iadsa", {"w_bounds": (-0.1, 0.5)}), ("iadsa", {"w_bounds": (0.5, 1.5)}), ("iadsa", {"dropout": 1.0}),
    ("iadsa", {"dropout": -0.1}), ("iadsa", {"averaging_decay": 1.0}), ("iadsa", {"averaging_decay": -0.1}),
    ("iadsa", {"adsa_steps": (40, 2, 4, 2, 0)}), ("iadsa", {"adsa_steps": (-1, 2, 4, 2, 1)}),
    ("iadsa", {"adaptation_smoothing": 0.6}), ("iadsa", {"separation_smoothing": -0.1}), ("iadsa", {"hidden": 0}),
    ("iadsa", {"difference_weight": -1.0}), ("iadsa", {"reconstruction_weight": -1.0}),
    ("adsa", {"adaptation_smoothing": 0.6}), ("adsa", {"dropout": 1.0}),
    *[(name, {"weight": -1.0}) for name in ("dan", "jan", "coral", "cdan", "mcd", "mdd", "mcc", "fixmatch")],
    ("shot", {"weight": -1.0}), ("cdan", {"confusion_weight": -1.0}), ("adda", {"dropout": 1.0}),
    ("cdan", {"dropout": 1.0}), ("adda", {"hidden": 0}),
    ("mcd", {"encoder_steps": 0}), ("mdd", {"gamma": 0.5}), ("mdd", {"dropout": 1.0}), ("mcc", {"temperature": 0.0}),
    ("dsn", {"alpha": -1.0}), ("dsn", {"beta": -1.0}), ("dsn", {"gamma": -1.0}), ("dsn", {"dropout": 1.0}),
    *[("bridge", {key: -1.0})
      for key in ("restyled", "weight", "confusion_weight", "temperature", "self_weight", "dropout")],
    ("bridge", {"averaging_decay": 1.0}), ("shot", {"beta": -1.0}),
    ("fixmatch", {"threshold": 1.5}), ("sdat", {"rho": 0.0}), ("sdat", {"weight": -1.0}),
    ("dann", {"dropout": 1.5}), ("dann", {"dropout": -0.1}), ("dann", {"weight": -1.0}), ("dann", {"hidden": 0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "knobs"), WRONG, ids=[f"{name} {knobs}" for name, knobs in WRONG])
def test_knobs_out_of_range_are_refused_by_name(name, knobs):
    with pytest.raises(UsageError) as caught:
        build(name, knobs)
    assert caught.value.key == "knob_range" and next(iter(knobs)) in str(caught.value)


def test_knobs_are_frozen_and_carry_over():
    knobs = METHODS["iadsa"].Knobs(pull=2.0)
    with pytest.raises(AttributeError):
        knobs.pull = 3.0
    assert replace(knobs, beta=2.0).pull == 2.0
    with pytest.raises(UsageError):
        replace(knobs, beta=-2.0)


def test_the_average_follows_the_trained_network():
    method = build("iadsa", {"averaging": "ema", "averaging_decay": 0.75})
    for step in range(3):
        average = parameters(method.averaged_encoder)
        train(method, 1, first=step)
        for key, value in method.shared_encoder.named_parameters():
            wanted = 0.75 * average[key] + 0.25 * value
            assert torch.allclose(method.averaged_encoder.get_parameter(key), wanted, atol=1e-7)
    assert method.deployed()[0] is method.averaged_encoder
    assert not any(parameter.requires_grad for parameter in method.averaged_encoder.parameters())


def test_private_encoders_begin_as_the_shared_one_and_part_from_it():
    method = build("iadsa")
    images = torch.rand(2, 1, SIDE, SIDE) * 255
    shared, private = method.shared_encoder, (method.source_encoder, method.target_encoder)
    assert all(torch.equal(shared(images), each(images)) for each in private)
    train(method, 3)
    assert not any(torch.equal(shared(images), each(images)) for each in private)
    assert not torch.equal(private[0](images), private[1](images))


def test_embedded_samples_never_come_from_the_target(monkeypatch):
    seen = []
    mine = iadsa.mine
    monkeypatch.setattr(iadsa, "mine", lambda features, *rest: seen.append(features) or mine(features, *rest))
    method = build("iadsa")
    source, target = batches(0, labels=[0, 1, 2, 0, 1, 2, 0, 1])
    next(method.updates(source, target, 0.0))
    [features] = seen
    assert torch.allclose(features, method.shared_encoder(source.images), atol=1e-5)
    assert source.labels[CLASS].shape == (8,)
