"""Method: what makes one way of training a supernet differ from another. The loop is the same for all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from supernet.network.elastic_net import Supernet
from supernet.training.initial_weights import take_over_supernet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch

    from supernet.spaces.space import SearchSpace
    from supernet.training.checkpoint import RunState
    from supernet.training.passes import Pass


class Teacher(Enum):
    """Whose soft labels the passes of a phase may learn from."""

    FIRST_PASS = "first pass"
    """Of the same step: in-place distillation."""
    LARGEST = "largest"
    """The largest network, as the phases before left it when it was first asked."""
    GIVEN = "given"
    """The one that `train` is given."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a run with a learning-rate schedule and momentum of its own.

    Attributes:
        name: For the log.
        epochs: At least 1.
        rate_factor: Peak of its learning rate over that of the run.
        teacher: Of the passes that distil.
    """

    name: str
    epochs: int
    rate_factor: float = 1.0
    teacher: Teacher = Teacher.FIRST_PASS


@dataclass(frozen=True, slots=True)
class Epoch:
    """Where a run is.

    Attributes:
        number: Over the whole run, from 0.
        phase: It belongs to.
        in_phase: Number inside the phase, from 0.
        epochs: Of the whole run.
    """

    number: int
    phase: Phase
    in_phase: int
    epochs: int


class Method(Protocol):
    """Decides, per step, which archs run and what they learn from, and what happens between phases and epochs.

    All that it draws comes from the generator it is given, so that every rank of a parallel run draws the same.
    """

    @property
    def space(self) -> SearchSpace:
        """Of the supernet that is trained."""

    def build_supernet(self, generator: torch.Generator) -> Supernet:
        """What is trained, with initial weights."""

    def take_over(self, supernet: Supernet, initial: Supernet) -> None:
        """Start from the weights of another supernet; raises `FingerprintMismatchError` where its space is another."""

    def phases(self) -> Sequence[Phase]:
        """In order."""

    def begin_phase(self, phase: Phase, state: RunState) -> None:
        """Prepare the weights before the first epoch of a phase; optimizer and average are made anew afterwards."""

    def begin_epoch(self, epoch: Epoch, state: RunState) -> None:
        """Prepare an epoch."""

    def passes(self, epoch: Epoch, step: int, rng: np.random.Generator) -> Sequence[Pass]:
        """What runs in a step; `step` counts inside the epoch."""

    def observe(self, passes: Sequence[Pass], label_losses: Sequence[float]) -> None:
        """Learn how the passes of a step went: their cross-entropies with the plain labels."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beyond weights and settings, as JSON values."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave."""


class PlainMethod:
    """What most methods do around their steps: train a plain supernet, take over all weights, nothing in between."""

    if TYPE_CHECKING:

        @property
        def space(self) -> SearchSpace:
            """A field or a property of each method."""

    def build_supernet(self, generator: torch.Generator) -> Supernet:
        """Of the method's space."""
        return Supernet(self.space, generator)

    def take_over(self, supernet: Supernet, initial: Supernet) -> None:
        """All of them."""
        take_over_supernet(supernet, initial)

    def begin_phase(self, phase: Phase, state: RunState) -> None:
        """Nothing."""

    def begin_epoch(self, epoch: Epoch, state: RunState) -> None:
        """Nothing."""

    def observe(self, passes: Sequence[Pass], label_losses: Sequence[float]) -> None:
        """Nothing."""

    def state(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing."""
