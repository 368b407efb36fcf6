"""Whether an exported graph computes what the torch module computes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supernet.errors import ExportParityError, InvalidConfigError
from supernet.export.runtime import open_session, run_session

if TYPE_CHECKING:
    from pathlib import Path

    from supernet.network.subnet import Subnet

DEFAULT_TOLERANCE = 1e-4
# Logits up to here meet the tolerance as it stands; it is some hundred of their rounding errors. Those of a network fed
# with images unlike any it knows can be far larger, and so are their rounding errors.
LARGEST_PLAIN_LOGIT = 16.0


@dataclass(frozen=True, slots=True)
class ParityReport:
    """ONNX Runtime against torch on the same images.

    Attributes:
        images: How many were compared.
        max_abs_diff: Largest difference of a logit.
        top1_agreement: Share of images with the same largest logit.
        tolerance: What `max_abs_diff` was allowed to be.
    """

    images: int
    max_abs_diff: float
    top1_agreement: float
    tolerance: float


def allowed_difference(tolerance: float, logits: NDArray[np.float32]) -> float:
    """The tolerance for logits of this size: itself up to `LARGEST_PLAIN_LOGIT`, in proportion beyond."""
    return tolerance * max(1.0, float(np.abs(logits).max()) / LARGEST_PLAIN_LOGIT)


def check_parity(
    subnet: Subnet,
    onnx_path: Path,
    images: Tensor | NDArray[np.float32],
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    threads: int = 1,
    batch_size: int = 64,
) -> ParityReport:
    """Compare the logits of ONNX Runtime and torch.

    Args:
        subnet: The exported one; a copy of it runs, in eval mode.
        onnx_path: Its export.
        images: `(n, in_chs, resolution, resolution)`, normalised, at least one.
        tolerance: Largest difference of a logit that is allowed; see `allowed_difference`.
        threads: Of ONNX Runtime; torch runs with the caller's.
        batch_size: Images in one call of either.

    Returns:
        How close they are.

    Raises:
        ExportParityError: A logit differs by more than the tolerance, or is NaN.
        InvalidConfigError: The images have another shape, or there are none.
    """
    inputs = np.ascontiguousarray(images.detach().cpu() if isinstance(images, Tensor) else images, np.float32)
    shape = (subnet.in_chs, subnet.resolution, subnet.resolution)
    if inputs.shape[1:] != shape or not len(inputs):
        raise InvalidConfigError(f"Parity needs one or more images of shape (n, *{shape}), got {inputs.shape}.")
    expected = _torch_logits(subnet, inputs, batch_size=batch_size)
    found = run_session(open_session(onnx_path, threads=threads), inputs, batch_size=batch_size)
    max_abs_diff = float(np.abs(found - expected).max())
    tolerance = allowed_difference(tolerance, expected)
    if not max_abs_diff <= tolerance:  # so written that NaN raises
        raise ExportParityError(
            f"'{onnx_path.name}' differs from torch by {max_abs_diff:.2e} in a logit, {tolerance:.0e} is allowed. "
            "Export it again from the same subnet.",
            max_abs_diff=max_abs_diff,
            tolerance=tolerance,
        )
    return ParityReport(
        images=len(inputs),
        max_abs_diff=max_abs_diff,
        top1_agreement=float((found.argmax(1) == expected.argmax(1)).mean()),
        tolerance=tolerance,
    )


@torch.inference_mode()
def reference_logits(subnet: Subnet, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits `(n, classes)` of the subnet in double precision, rounded to float32.

    In double precision the order of sums, and so the machine, shows in the rounded value almost never.
    """
    double = copy.deepcopy(subnet).cpu().double().eval()
    logits: NDArray[np.float32] = double(torch.from_numpy(images).double()).float().numpy()
    return logits


@torch.inference_mode()
def _torch_logits(subnet: Subnet, images: NDArray[np.float32], *, batch_size: int) -> NDArray[np.float32]:
    device = next(subnet.parameters()).device
    copied = copy.deepcopy(subnet).eval()
    starts = range(0, len(images), batch_size)
    batches = [copied(torch.from_numpy(images[start : start + batch_size]).to(device)).cpu() for start in starts]
    logits: NDArray[np.float32] = torch.cat(batches).numpy()
    return logits
