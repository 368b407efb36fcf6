"""Errors of the supernet package. Each message says what was given, what is allowed and what to do.

SupernetError
├─ InvalidArchError (ValueError)         an arch outside its search space
├─ InvalidSpaceError (ValueError)        a search space that cannot be built
├─ InvalidConfigError (ValueError)       a setting of training, search or evaluation
├─ InvalidDatasetError (ValueError)      images or labels that cannot be trained on
├─ InvalidBundleError (ValueError)       a bundle, checkpoint or predictor file that is broken or foreign
│  └─ FingerprintMismatchError           made for another search space
├─ InvalidCheckpointError (ValueError)   a file of the reference project that is broken or of another network
├─ MissingPartError (LookupError)        a bundle without the part this call needs
├─ InfeasibleBudgetError (ValueError)    no arch meets the constraints; carries the nearest one
├─ TrainingDivergedError (ArithmeticError)
├─ ExportParityError (ArithmeticError)   ONNX and torch disagree
└─ InvalidDeploymentError (ValueError)   a deployment folder that does not verify
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supernet.spaces.arch import Arch


class SupernetError(Exception):
    """Root of every error this package raises on purpose."""


class InvalidArchError(SupernetError, ValueError):
    """An arch that is malformed or lies outside its search space."""


class InvalidSpaceError(SupernetError, ValueError):
    """A search space that is inconsistent, or a name nobody defined."""


class InvalidConfigError(SupernetError, ValueError):
    """A setting that is unknown or out of range."""


class InvalidDatasetError(SupernetError, ValueError):
    """Images or labels that cannot be used; the message names the file."""


class InvalidBundleError(SupernetError, ValueError):
    """A bundle, checkpoint or predictor file that is truncated, foreign or inconsistent."""


class FingerprintMismatchError(InvalidBundleError):
    """Weights or a predictor made for another search space.

    Attributes:
        expected: Fingerprint of the space in use.
        found: Fingerprint written in the file.
    """

    def __init__(self, message: str, *, expected: str, found: str) -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found


class InvalidCheckpointError(SupernetError, ValueError):
    """A file of the reference project that is truncated, no state dict, or of another network; names the keys."""


class MissingPartError(SupernetError, LookupError):
    """A bundle lacks the part a call needs.

    Attributes:
        part: `weights`, `predictor`, `calibration` or `pools`.
    """

    def __init__(self, message: str, *, part: str) -> None:
        super().__init__(message)
        self.part = part


class InfeasibleBudgetError(SupernetError, ValueError):
    """No arch of the space meets the constraints.

    Attributes:
        binding: Name of the constraint that cannot be met.
        best_achievable: The nearest possible value of every constrained quantity.
        arch: The arch that reaches them.
    """

    def __init__(self, message: str, *, binding: str, best_achievable: dict[str, float], arch: Arch) -> None:
        super().__init__(message)
        self.binding = binding
        self.best_achievable = best_achievable
        self.arch = arch


class TrainingDivergedError(SupernetError, ArithmeticError):
    """The loss or its gradient became NaN or infinite.

    Attributes:
        step: Optimizer step, counted from 0 over the whole run.
        loss: The offending value.
    """

    def __init__(self, message: str, *, step: int, loss: float) -> None:
        super().__init__(message)
        self.step = step
        self.loss = loss


class ExportParityError(SupernetError, ArithmeticError):
    """The exported ONNX graph does not compute what the torch module computes.

    Attributes:
        max_abs_diff: Largest difference of a logit.
        tolerance: What was allowed.
    """

    def __init__(self, message: str, *, max_abs_diff: float, tolerance: float) -> None:
        super().__init__(message)
        self.max_abs_diff = max_abs_diff
        self.tolerance = tolerance


class InvalidDeploymentError(SupernetError, ValueError):
    """A deployment folder whose files are missing, changed or inconsistent."""
