"""The metrics of the gateway process, as a table from which the reference page is made.

Counters and gauges are read from the scheduler when they are scraped; histograms are fed as things happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dualpath_api.wire import Role
from dualpath_gateway.scheduler.world import World

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
Samples = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One row of the table; `read` gives the samples of counters and gauges by label values."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    read: Callable[[World], Samples] | None = None


def _one(read: Callable[[World], float]) -> Callable[[World], Samples]:
    return lambda world: {(): read(world)}


def _by_key(read: Callable[[World], Mapping[str, int]]) -> Callable[[World], Samples]:
    return lambda world: {(key,): value for key, value in read(world).items()}


def _by_state(world: World) -> Samples:
    found: dict[tuple[str, ...], float] = {}
    for job in world.jobs.values():
        found[job.state.value,] = found.get((job.state.value,), 0) + 1
    return found


def _engines(world: World) -> Samples:
    found: dict[tuple[str, ...], float] = {(role.value, "serving"): 0 for role in Role}
    for engine in world.engines:
        key = (engine.role.value, engine.status)
        found[key] = found.get(key, 0) + 1
    return found


METRICS: tuple[MetricSpec, ...] = (
    MetricSpec(
        "counter",
        "dualpath_prompt_tokens_total",
        "Prompt tokens of requests that got a first token.",
        read=_one(lambda world: world.totals.prompt_tokens),
    ),
    MetricSpec(
        "counter",
        "dualpath_kv_hit_tokens_total",
        "Prompt tokens whose KV came from storage.",
        read=_one(lambda world: world.totals.hit_tokens),
    ),
    MetricSpec(
        "counter",
        "dualpath_generated_tokens_total",
        "Tokens drawn, end-of-sequence tokens included.",
        read=_one(lambda world: world.totals.generated_tokens),
    ),
    MetricSpec(
        "counter",
        "dualpath_lost_blocks_total",
        "Blocks that storage had, but that could not be read in time or intact.",
        read=_one(lambda world: world.totals.lost_blocks),
    ),
    MetricSpec(
        "counter",
        "dualpath_requests_total",
        "Requests that ended, by outcome.",
        ("outcome",),
        _by_key(lambda world: world.totals.outcomes),
    ),
    MetricSpec(
        "counter",
        "dualpath_attempts_total",
        "Attempts that ended: ok, failed, excused or refused.",
        ("result",),
        _by_key(lambda world: world.totals.attempts),
    ),
    MetricSpec(
        "counter",
        "dualpath_assignments_total",
        "Assignments by read mode.",
        ("mode",),
        _by_key(lambda world: world.totals.modes),
    ),
    MetricSpec(
        "gauge",
        "dualpath_queue_depth",
        "Requests that wait for engines.",
        read=_one(lambda world: len(world.queue)),
    ),
    MetricSpec("gauge", "dualpath_requests_running", "Requests by state.", ("state",), _by_state),
    MetricSpec("gauge", "dualpath_engines", "Connected engines.", ("role", "state"), _engines),
    MetricSpec(
        "gauge",
        "dualpath_pending_blocks",
        "Blocks of ended requests that are still in a write queue.",
        read=_one(lambda world: len(world.pending)),
    ),
    MetricSpec(
        "gauge",
        "dualpath_context_tokens",
        "Tokens of prompt and answer that the connected engines can hold.",
        read=_one(lambda world: world.engines.context()),
    ),
    MetricSpec("histogram", "dualpath_ttft_seconds", "From a request's arrival to its first token."),
    MetricSpec("histogram", "dualpath_itl_seconds", "Between two tokens of a request with one choice."),
    MetricSpec("histogram", "dualpath_queue_seconds", "From entering the queue to an assignment."),
    MetricSpec("histogram", "dualpath_encode_seconds", "Making token ids and block keys of one prompt."),
)


class Metrics(Collector):
    """The registry of this process."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.registry = CollectorRegistry()
        self._histograms = {
            spec.name: Histogram(spec.name, spec.help, spec.labels, buckets=_SECONDS, registry=self.registry)
            for spec in METRICS
            if spec.kind == "histogram"
        }
        self.registry.register(self)

    def observe(self, metric: str, value: float, labels: Mapping[str, str]) -> None:
        """Feed a histogram."""
        histogram = self._histograms[metric]
        (histogram.labels(**labels) if labels else histogram).observe(value)

    def collect(self) -> Iterator[Metric]:
        """Counters and gauges, read now."""
        families = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        for spec in METRICS:
            if spec.read is not None:
                family = families[spec.kind](spec.name, spec.help, labels=spec.labels)
                for labels, value in spec.read(self._world).items():
                    family.add_metric(labels, value)
                yield family

    def page(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)
