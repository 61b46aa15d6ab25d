"""What /metrics says, in a registry of its own."""

from collections.abc import Callable
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # a second line for each, which nobody reads
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "inspect_requests", "Requests answered, by address and status.", ["path", "code"], registry=registry
        )
        self.seconds = Histogram(
            "inspect_request_seconds", "Seconds from the headers to the end of the answer.", ["path"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.stages = Histogram(
            "inspect_stage_seconds", "Seconds that an image waits, and that a batch is looked at.", ["stage"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.batches = Histogram(
            "inspect_batch_images", "Images looked at together.", buckets=range(1, 17), registry=registry
        )
        self.decisions = Counter(
            "inspect_decisions", "Images looked at, by decision and class.", ["decision", "class"], registry=registry
        )
        self.restarts = Counter("inspect_worker_restarts", "Workers that ended by themselves.", registry=registry)
        self.swaps = Counter(
            "inspect_swaps", "Changes of the inspector's folder, taken over or refused.", ["outcome"], registry=registry
        )
        self._info = Gauge("inspect_inspector_info", "The inspector that serves.", ["sha256"], registry=registry)
        self._connections = Gauge("inspect_connections", "Open connections.", registry=registry)
        self._waiting = Gauge("inspect_waiting_images", "Images that wait for the worker.", registry=registry)

    def watch(self, waiting: Callable[[], int], connections: Callable[[], int]) -> None:
        """Where the figures of the moment come from."""
        self._waiting.set_function(waiting)
        self._connections.set_function(connections)

    def serving(self, inspector: str) -> None:
        self._info.clear()
        self._info.labels(inspector).set(1)

    def row(self, row: dict[str, Any]) -> None:
        self.decisions.labels(row["decision"], row.get("class") or "").inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
