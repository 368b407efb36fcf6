"""Timing ONNX models in this process: sessions, bursts of runs, and the plan that says how long.

Used by the child process of `process.py`, where nothing else runs. Clock: `time.perf_counter_ns`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from math import inf, isfinite
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latency_tables.errors import InvalidSettingError, MeasurementError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Values = NDArray[np.float64]

# The first passes of a burst fill caches and branch predictors with what the pass before it left elsewhere.
DISCARDED_PASSES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurePlan:
    """How long to measure.

    A visit is one burst of passes over a chain of blocks or over a network, between two bursts of the reference.

    Attributes:
        warmup_s: Time the reference runs before anything counts.
        burst_s: Length of a visit.
        reference_s: Length of a burst of the reference.
        min_runs: Least passes of a burst, however long they take.
        rounds: Visits of each chain and network.
        steady_visits: Of each chain and network that should count; on a machine with other work few visits do.
        limit_s: What had fewer is visited again until the measurement has taken this long.
        coverage: Chains each block stands in, at least.
        networks: Whole networks for the calibration.
        max_drift: Slowest over fastest reference above which the measurement fails; infinite only warns.
        min_covered_share: Share of chains and networks with a steady visit below which no table is made; 0 only warns.
    """

    warmup_s: float = 1.0
    burst_s: float = 0.016
    reference_s: float = 0.005
    min_runs: int = 8
    rounds: int = 6
    steady_visits: int = 1
    limit_s: float = 50.0
    coverage: int = 3
    networks: int = 24
    max_drift: float = inf
    min_covered_share: float = 0.8

    def __post_init__(self) -> None:
        """Refuse plans that measure nothing."""
        for name in ("warmup_s", "burst_s", "reference_s", "limit_s"):
            value = getattr(self, name)
            if not isfinite(value) or value < 0:
                raise InvalidSettingError(f"'{name}' of a measuring plan must be finite seconds from 0, got {value}.")
        for name, least in (("min_runs", 3), ("rounds", 1), ("steady_visits", 0), ("coverage", 1), ("networks", 0)):
            if getattr(self, name) < least:
                raise InvalidSettingError(f"'{name}' of a measuring plan must be at least {least}.")
        if not self.max_drift > 1:
            raise InvalidSettingError(f"'max_drift' of a measuring plan must be above 1, got {self.max_drift}.")
        if not 0 <= self.min_covered_share <= 1:
            raise InvalidSettingError(
                f"'min_covered_share' of a measuring plan lies between 0 and 1, got {self.min_covered_share}."
            )

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; an infinite drift is left out."""
        return {name: value for name, value in asdict(self).items() if value != inf}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> MeasurePlan:
        """Read what `to_dict` wrote; raises `InvalidSettingError` for unknown keys."""
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown:
            raise InvalidSettingError(f"Unknown keys {unknown} of a measuring plan.")
        return cls(**data)


# Many short visits: a program that comes and goes beside the measurement spoils few of them.
QUICK_PLAN = MeasurePlan()
FULL_PLAN = MeasurePlan(warmup_s=2.0, burst_s=0.02, rounds=12, steady_visits=4, limit_s=600.0, coverage=5, networks=60)


@dataclass(frozen=True, slots=True)
class Burst:
    """Passes over calls that were timed one by one.

    Attributes:
        median_ms: `(n_calls,)` milliseconds.
        spread_ms: `(n_calls,)` half-width of the middle half, scaled to a standard deviation.
        passes: Passes that counted.
    """

    median_ms: Values
    spread_ms: Values
    passes: int


def time_burst(calls: Sequence[Callable[[], Any]], *, burst_s: float, min_runs: int) -> Burst:
    """Run calls one after another, again and again, and time each one.

    Args:
        calls: Run in this order in every pass; inputs and outputs are theirs to hold.
        burst_s: Passes start until this much time is over.
        min_runs: Least passes that count.
    """
    passes: list[list[int]] = []
    ends = perf_counter() + burst_s
    while perf_counter() < ends or len(passes) < min_runs + DISCARDED_PASSES:
        times = []
        for call in calls:
            start = perf_counter_ns()
            call()
            times.append(perf_counter_ns() - start)
        passes.append(times)
    times_ms = np.array(passes[DISCARDED_PASSES:], np.float64) / 1e6
    low, median, high = np.percentile(times_ms, (25, 50, 75), axis=0)
    return Burst(median, (high - low) / 1.349, len(times_ms))


class Sessions:
    """ONNX Runtime sessions on the CPU that share one pool of threads, the most recently used ones kept.

    A pool per session would leave the threads of every idle session spinning beside the one that is timed. Spinning
    itself stays as ONNX Runtime sets it, as in the sessions of callers.

    Args:
        threads: Threads of one inference.
        batch_size: Stands in for a symbolic first dimension.
        rng: Source of the inputs.
        max_bytes: Models kept, by the size of their files.
    """

    def __init__(
        self, *, threads: int, batch_size: int, rng: np.random.Generator, max_bytes: int = 400_000_000
    ) -> None:
        self.runtime = import_module("onnxruntime")
        self.batch_size = batch_size
        self.rng = rng
        self.options = self.runtime.SessionOptions()
        self.options.inter_op_num_threads = 1
        self.options.intra_op_num_threads = threads
        if threads > 1:
            self.runtime.set_global_thread_pool_sizes(threads, 1)
            self.options.use_per_session_threads = False
        self.max_bytes = max_bytes
        self._open: OrderedDict[object, tuple[Any, int]] = OrderedDict()

    def get(self, key: object, model: Callable[[], bytes]) -> Any:
        """The session of a key; `model` is asked for its bytes where it is not open."""
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key][0]
        data = model()
        session = self.runtime.InferenceSession(data, self.options, providers=["CPUExecutionProvider"])
        self._open[key] = session, len(data)
        while len(self._open) > 1 and sum(size for _, size in self._open.values()) > self.max_bytes:
            self._open.popitem(last=False)
        return session

    def plain_call(self, session: Any) -> Callable[[], Any]:
        """Run a session the way callers do: arrays in, new arrays out."""
        feeds = {value.name: self._random(value) for value in session.get_inputs()}
        return lambda: session.run(None, feeds)

    def chained_calls(self, chain: Sequence[Any]) -> list[Callable[[], Any]]:
        """Run single-input sessions on each other's output buffers, which nobody copies or allocates anew.

        A session whose input has another shape than the output before it, as the empty graph, gets its own input.
        """
        calls: list[Callable[[], Any]] = []
        held = None
        for session in chain:
            (source,), (result,) = session.get_inputs(), session.get_outputs()
            own = held is None or held.shape() != source.shape
            given = self.runtime.OrtValue.ortvalue_from_numpy(self._random(source)) if own else held
            output = self.runtime.OrtValue.ortvalue_from_numpy(np.zeros(result.shape, np.float32))
            binding = session.io_binding()
            binding.bind_ortvalue_input(source.name, given)
            binding.bind_ortvalue_output(result.name, output)
            calls.append(_bound(session, binding))
            if not own or held is None:
                held = output
        return calls

    def _random(self, value: Any) -> NDArray[Any]:
        first, *rest = value.shape or [1]
        shape = [first if isinstance(first, int) else self.batch_size, *rest]
        if not all(isinstance(size, int) for size in shape):
            raise MeasurementError(
                f"Input '{value.name}' has the shape {value.shape}; only the first dimension may be symbolic. Export "
                "the model with fixed sizes."
            )
        match value.type:
            case "tensor(float)":
                return self.rng.standard_normal(shape, np.float32)
            case "tensor(uint8)":
                return self.rng.integers(0, 256, shape).astype(np.uint8)
            case "tensor(int8)":
                return self.rng.integers(-128, 128, shape).astype(np.int8)
        raise MeasurementError(f"Input '{value.name}' is a {value.type}; allowed are float, uint8 and int8 tensors.")


def _bound(session: Any, binding: Any) -> Callable[[], Any]:
    run = session.run_with_iobinding
    return lambda: run(binding)
