"""CorrectedPredictor: what the reference project's network says, corrected by subnets somebody measured.

The process of `AccuracyPredictor` with the network's own log error as a second trend beside log MACs. Of the models
compared (a line through log errors, a process on what it leaves, either trend alone) the most accurate on held-out
subnets from 20 labels up: with few labels it is a line, with many it forgets the network where this is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.errors import InvalidConfigError
from supernet.predictors.accuracy import AccuracyPredictor, log_errors
from supernet.predictors.inputs import ArchInputs
from supernet.predictors.ofa_network import OfaPredictor
from supernet.predictors.predictor import INTERVAL_LEVEL, PredictorQuality, validate_resolutions
from supernet.predictors.storage import write_file

if TYPE_CHECKING:
    from pathlib import Path

    from supernet.predictors.predictor import Predictor
    from supernet.predictors.storage import Arrays
    from supernet.spaces.costs import Values
    from supernet.spaces.space import Rows, SearchSpace

FORMAT = "tailor-corrected-predictor/1"
_PREFIX = "base."


@dataclass(frozen=True, eq=False)
class CorrectedPredictor:
    """Predicts top-1 accuracies as an imported predictor does, without its offset and with intervals.

    Attributes:
        base: The imported predictor.
        fitted: On the measured archs; it sees archs through the base.
    """

    base: OfaPredictor
    fitted: AccuracyPredictor

    @classmethod
    def fit(
        cls, base: Predictor, rows: Rows, top1: Values, *, n_images: int | None, rng: np.random.Generator
    ) -> CorrectedPredictor:
        """Correct an imported predictor by measured archs of its space.

        Args:
            base: An `OfaPredictor`.
            rows: `(n_archs, n_slots)` choice indices, at least `LEAST_ARCHS` distinct ones at resolutions that the
                base knows.
            top1: `(n_archs,)` fractions.
            n_images: Images behind each accuracy, the same for all archs; None where unknown.
            rng: Draws the folds of the cross-validation.

        Raises:
            InvalidArchError: A row lies outside the space or has a resolution the base does not know.
            InvalidConfigError: The base is of another kind; or as `AccuracyPredictor.fit`.
        """
        if not isinstance(base, OfaPredictor):
            raise InvalidConfigError(
                f"Only an imported predictor is corrected, and this is a {type(base).__name__}, fitted on accuracies "
                "already. Correct the imported file, or fit a new predictor, with all measured archs in one CSV."
            )
        fitted = AccuracyPredictor.fit_inputs(CorrectedInputs(base), rows, top1, n_images=n_images, rng=rng)
        return cls(base, fitted)

    @property
    def space(self) -> SearchSpace:
        """The space of the base."""
        return self.base.space

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Resolutions of the measured archs, ascending, pixels: the only ones it predicts for.

        How far off the base is at others nobody measured, so no interval could be justified there.
        """
        return self.fitted.resolutions

    @property
    def quality(self) -> PredictorQuality:
        """From cross-validation on the measured archs."""
        return self.fitted.quality

    def predict(self, rows: Rows) -> Values:
        """Predict top-1 accuracies; arguments and errors are those of `AccuracyPredictor.predict`."""
        return self.fitted.predict(rows)

    def interval(
        self, rows: Rows, level: float = INTERVAL_LEVEL, *, extra_images: int | None = None
    ) -> tuple[Values, Values]:
        """Where accuracies lie that are measured as those of the fit were; see `AccuracyPredictor.interval`."""
        return self.fitted.interval(rows, level, extra_images=extra_images)

    def save(self, path: Path) -> None:
        """Write one safetensors file that holds the base too, whole or not at all; an existing one is replaced.

        Raises:
            InvalidConfigError: The path is a folder, or lies in one that does not exist.
        """
        content, arrays = self.fitted.parts()
        base_content, base_arrays = self.base.parts()
        content |= {"base": base_content}
        arrays |= {_PREFIX + name: array for name, array in base_arrays.items()}
        write_file(path, self.space, file_format=FORMAT, content=content, arrays=arrays)

    @classmethod
    def from_file(cls, space: SearchSpace, content: dict[str, Any], arrays: Arrays) -> CorrectedPredictor:
        """Put together what `save` wrote for this space; raises `ValueError` and the like where it is damaged."""
        own = {name: array for name, array in arrays.items() if not name.startswith(_PREFIX)}
        of_base = {name.removeprefix(_PREFIX): array for name, array in arrays.items() if name not in own}
        base = OfaPredictor.from_file(space, content["base"], of_base)
        fitted = AccuracyPredictor.from_parts(CorrectedInputs(base), content, own)
        validate_resolutions(space, fitted.rows, base.resolutions)
        return cls(base, fitted)


class CorrectedInputs(ArchInputs):
    """Archs with what an imported predictor says of them as a second trend.

    Both trends share one slope: one each was no more accurate, and less so below 50 labels.
    """

    def __init__(self, base: OfaPredictor) -> None:
        super().__init__(base.space)
        self.base = base

    @property
    def n_trends(self) -> int:
        """Log MACs and the base's log error."""
        return 2

    def trends(self, rows: Rows) -> Values:
        """`(2, n_archs)`.

        Raises:
            InvalidArchError: A row has a resolution the base does not know.
        """
        return np.concatenate([super().trends(rows), log_errors(self.base.predict(rows))[None]])
