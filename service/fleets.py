"""Many searches of one supernet: what one looked at, the others need not find again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from latency_tables.errors import LatencyError
from service.answers import find_best
from service.errors import ServiceError
from supernet.errors import SupernetError
from supernet.search.additive_front import additive_front
from supernet.search.front import trace_front
from supernet.search.problem import Objective, SearchProblem
from supernet.search.surrogate import fit_surrogate
from supernet.spaces.costs import macs_cost

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from service.questions import Question, Target
    from supernet.predictors.predictor import Predictor
    from supernet.search.front import Front
    from supernet.spaces.arch import Arch
    from supernet.spaces.space import Rows

# Fewer questions than these are answered one by one.
_FEW = 4
# Archs evaluated once for all questions, and then for each of them. Accuracies do not depend on the device.
_SHARED_EVALUATIONS, _OWN_EVALUATIONS = 20_000, 1_000
# Archs an additive model learns from at each resolution: so many random ones, and as many like the best ones.
_MODEL_ARCHS, _MUTATION = 1000, 0.15

KNOWN_ERRORS = (ServiceError, SupernetError, LatencyError)


@dataclass(frozen=True)
class Asked:
    """One of many questions.

    Attributes:
        front: As of `find_best`.
        start: As of `find_best`.
        is_alone: Whether it looks at as many archs as it names, and shares nothing.
    """

    targets: Sequence[Target]
    question: Question
    front: Front | None = None
    start: Rows | None = None
    is_alone: bool = False

    @property
    def starts_afresh(self) -> bool:
        """Whether it shares, and nothing is known of its device."""
        return not self.is_alone and self.front is None


def find_all(predictor: Predictor, asked: Iterable[Asked]) -> Iterator[tuple[Arch, dict[str, Any]] | Exception]:
    """Answer many questions of one supernet, in their order.

    Where more than a few share, what holds for every device is found out first; each search starts from it and from the
    answers before, and looks at fewer archs than it was allowed.

    Args:
        predictor: Of the supernet.
        asked: The questions.

    Yields:
        Per question what `find_best` returns; or the error it raises, so that the others have their answers all the
        same.
    """
    asked = list(asked)
    shared: SharedKnowledge | None = None
    many = sum(not one.is_alone for one in asked) > _FEW
    if sum(one.starts_afresh for one in asked) > _FEW:
        shared = SharedKnowledge(predictor)
    for one in asked:
        question, start = one.question, one.start
        try:
            if many and not one.is_alone:
                question = replace(question, evaluations=min(question.evaluations, _OWN_EVALUATIONS))
            if shared is not None and one.starts_afresh:
                start = shared.start_for(one.targets)
            arch, found = find_best(predictor, one.targets, question, front=one.front, start=start)
        except KNOWN_ERRORS as error:
            yield error
            continue
        if shared is not None:
            shared.add(arch)
        yield arch, found


class SharedKnowledge:
    """What holds for every device: accuracies, and additive models of them whose exact fronts take milliseconds.

    Args:
        predictor: Of the supernet.
    """

    def __init__(self, predictor: Predictor) -> None:
        space = predictor.space
        problem = SearchProblem(space, predictor.predict, resolutions=predictor.resolutions)
        rng = np.random.default_rng(0)
        self._space = space
        self._rows = trace_front(problem, Objective("macs", macs_cost(space)), evaluations=_SHARED_EVALUATIONS).rows
        self._models = {}
        for index in problem.resolution_indices:
            good = self._rows[rng.integers(0, len(self._rows), _MODEL_ARCHS)]
            rows = np.concatenate(
                [space.sample_rows(rng, _MODEL_ARCHS), space.mutate_rows(good, rng, probability=_MUTATION)]
            )
            rows[:, 0] = index
            self._models[int(index)] = fit_surrogate(space, rows, predictor.predict(rows))
        self._starts: dict[tuple[str, ...], Rows] = {}

    def start_for(self, targets: Sequence[Target]) -> Rows:
        """Archs `(n_archs, n_slots)` to start a search for these devices from."""
        key = tuple(target.estimator.table.fingerprint for target in targets)
        if key not in self._starts:
            fronts = [
                additive_front(self._space, target.estimator.cost, scores, resolution_index=index)
                for target in targets
                for index, scores in self._models.items()
            ]
            self._starts[key] = np.concatenate(fronts)
        return np.concatenate([self._starts[key], self._rows])

    def add(self, arch: Arch) -> None:
        """An answer, from which later searches start too."""
        self._rows = np.concatenate([self._rows, self._space.to_rows([arch])])
