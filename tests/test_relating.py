"""Networks of many tasks in numbers, on tiny ones whose answers are known."""

import numpy as np
import pytest
import torch
from torch import nn

from steelshift import relating
from steelshift.data.tasks import Task
from steelshift.losses import tasks as losses
from steelshift.nn.encoders import Encoder
from steelshift.nn.heads import Heads
from steelshift.nn.sharing import SharedTrunk, sharing_of
from steelshift.relating import Network, Rows, common_rows, conflicts, relatedness, shared_rows, task_gradients

SIDE = 16
KINDS = ("progressive", "hard", "separate")


def network(kind, seed=0, kinds=("single-label", "ordinal", "multi-label")):
    torch.manual_seed(seed)
    plain = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(128, 8), nn.ReLU(),
    )  # fmt: skip
    trunk = SharedTrunk(plain, sharing_of(kind, (0.75, 0.5, 0.0), len(kinds)), 1)
    with torch.no_grad():
        for value in trunk.parameters():  # paths begin alike; here they have gone their own ways
            value += 0.1 * torch.randn_like(value)
    materials = ("steel", "steel", "copper")
    tasks = tuple(
        Task(f"任务 {n}", each, ("a", "b", "c"), {}, mechanism="thermal", material=materials[n % 3])
        for n, each in enumerate(kinds)
    )
    heads = Heads([(task.kind, 3) for task in tasks], trunk.ends)
    columns = {task.name: slice(3 * n, 3 * n + 3) for n, task in enumerate(tasks)}
    return Network(Encoder(trunk, SIDE).eval(), heads.eval(), tasks, columns)


def batch(net, count=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = 255 * torch.rand(count, 1, SIDE, SIDE, generator=generator)
    labels = {}
    for task in net.tasks:
        shape, most = ((count, 3), 2) if task.kind == "multi-label" else ((count,), 3)
        labels[task.name] = torch.randint(0, most, shape, generator=generator)
    return images, labels


def test_gradients_are_those_of_the_shared_weights():
    net = network("progressive")
    images, labels = batch(net)
    rows = shared_rows(net)
    assert rows == [Rows(6, 1), Rows(4, 6), Rows(0, 64)]
    found = task_gradients(net, images, labels, rows)
    assert found.shape == (3, 6 * 9 + 4 * 6 * 9)
    name = net.tasks[1].name
    net.encoder.zero_grad()
    losses.cross_entropy(losses.decisions(net.logits(images)[:, net.columns[name]], labels[name])).backward()
    weights = [layer.reads_shared.weight.grad for layer in net.trunk.shared_layers[:2]]
    wanted = torch.cat([weights[0][:6].flatten(), weights[1][:4].flatten()])
    assert torch.allclose(found[1], wanted, atol=1e-6)


def test_two_networks_are_compared_on_what_both_share():
    hard, progressive = network("hard"), network("progressive")
    assert common_rows(hard, progressive) == [Rows(6, 1), Rows(4, 6), Rows(0, 64)]
    images, labels = batch(hard)
    rows = common_rows(hard, progressive)
    assert task_gradients(hard, images, labels, rows).shape == task_gradients(progressive, images, labels, rows).shape
    found = conflicts(hard, [batch(hard, seed=seed) for seed in range(3)], rows)
    assert found.pairs == 9 and 0 < found.difference < 1


def test_a_task_without_labels_meets_no_other():
    net = network("hard")
    images, labels = batch(net)
    labels[net.tasks[0].name] = torch.full((12,), -1)
    assert task_gradients(net, images, labels, shared_rows(net))[0].isnan().all()
    found = conflicts(net, [(images, labels)], shared_rows(net))
    assert found.pairs == 1 and np.isnan(found.cosine[0]).all()


@pytest.mark.parametrize(("kind", "measures"), [
    ("progressive", {"maps", "gradient", "alignment"}), ("hard", {"maps", "gradient"}), ("separate", {"alignment"}),
])  # fmt: skip
def test_relatedness_by_every_measure_that_a_network_has(kind, measures):
    net = network(kind)
    images, labels = batch(net)
    found = relatedness(net, images, conflicts(net, [(images, labels)], shared_rows(net)))
    assert set(found) == measures
    for values in found.values():
        assert values.shape == (3, 3) and np.allclose(values, values.T) and np.abs(values).max() <= 1 + 1e-6
        assert np.allclose(np.diag(values), 1)
    described = relating.grouped(net.tasks, found)
    assert described["physical"]["groups"] == [["任务 0", "任务 1"], ["任务 2"]]
    for name, values in found.items():
        assert described["physical"]["within"][name] == pytest.approx(values[0, 1])
        assert described["physical"]["between"][name] == pytest.approx((values[0, 2] + values[1, 2]) / 2)


def test_tasks_with_one_head_are_related_wholly():
    net = network("hard", kinds=("single-label",) * 2)
    with torch.no_grad():
        for one, other in zip(*(head.parameters() for head in net.heads.of_task), strict=True):
            other.copy_(one)
    images, labels = batch(net)
    labels[net.tasks[1].name] = labels[net.tasks[0].name]
    found = relatedness(net, images, conflicts(net, [(images, labels)], shared_rows(net)))
    assert found["maps"][0, 1] == pytest.approx(1) and found["gradient"][0, 1] == pytest.approx(1, abs=1e-5)


def test_sharing_read_from_the_maps_follows_what_may_be_shared():
    read = {kind: relating.sharing(net := network(kind), batch(net)[0]) for kind in KINDS}
    assert read["separate"]["read"] == 0 and read["hard"]["read"] > 0.7
    assert read["separate"]["read"] < read["progressive"]["read"] < read["hard"]["read"]
    layers = read["progressive"]["by_layer"]
    assert [each["configured"] for each in layers] == [0.75, 0.5, 0.0] and layers[2]["read"] == 0
    assert read["progressive"]["configured"]["channels"] == pytest.approx(1.25 / 3)


def test_separability_is_of_each_tasks_own_path():
    net = network("separate", kinds=("single-label", "single-label", "multi-label"))
    rng = np.random.default_rng(0)
    labels = {task.name: rng.integers(0, 3, 60) for task in net.tasks[:2]}
    labels[net.tasks[2].name] = rng.integers(0, 2, (60, 3))
    paths = rng.standard_normal((60, 3, 8))
    paths[:, 0, :3] += 8 * np.eye(3)[labels[net.tasks[0].name]]  # the first path knows its classes, the second none
    labels[net.tasks[0].name][:5] = -1
    found = relating.separability(net, (paths[:30], {k: v[:30] for k, v in labels.items()}),
                                  (paths[30:], {k: v[30:] for k, v in labels.items()}))  # fmt: skip
    first, second = (found[task.name] for task in net.tasks[:2])
    assert len(found) == 2 and first["linear_probe"] > 0.9 > second["linear_probe"] + 0.3
    assert first["cluster_distance"] > 2 * second["cluster_distance"] and first["silhouette"] > second["silhouette"]


def test_task_distance_is_none_where_tasks_have_one_feature():
    paths = np.random.default_rng(0).standard_normal((20, 1, 8)).repeat(3, 1)
    assert relating.task_distance(paths) is None
    assert relating.task_distance(paths + 10 * np.eye(3, 8)) > relating.task_distance(paths + 0.1 * np.eye(3, 8))


def test_what_is_hardly_labelled_is_not_judged():
    net = network("separate", kinds=("single-label", "single-label"))
    paths = np.random.default_rng(0).standard_normal((20, 2, 8))
    labels = {net.tasks[0].name: np.full(20, -1), net.tasks[1].name: np.arange(20) % 2}
    labels[net.tasks[0].name][:2] = 0, 1
    found = relating.separability(net, (paths, labels), (paths, labels))
    assert list(found) == [net.tasks[1].name]
    assert relating.task_probe(paths[:, :1], paths[:, :1]) is None


def test_a_fresh_probe_tells_tasks_where_their_features_differ():
    paths = np.random.default_rng(0).standard_normal((80, 3, 8))
    apart = paths + 10 * np.eye(3, 8)
    assert relating.task_probe(apart[:40], apart[40:]) > 0.95
    assert relating.task_probe(paths[:40], paths[40:]) < 0.6
    one = paths[:, :1].repeat(3, 1)
    assert relating.task_probe(one[:40], one[40:]) < 0.4


def test_the_middle_of_a_surface_is_the_loss():
    net = network("progressive")
    images, labels = batch(net)
    found = relating.surfaces(net, images, labels, seed=0, points=3)
    assert tuple(found) == relating.SURFACES and all(each.shape == (3, 3) for each in found.values())
    with torch.no_grad():
        logits = net.logits(images)
        of_task = [losses.decisions(logits[:, part], labels[name]) for name, part in net.columns.items()]
    wanted = np.mean([float(losses.cross_entropy(each)) for each in of_task])
    assert found["cross-entropy"][1, 1] == pytest.approx(wanted, rel=1e-5)
    assert set(relating.rough(found)) == set(found)
