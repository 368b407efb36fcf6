"""ONNX Runtime on the CPU with a fixed number of threads. Needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as states

if TYPE_CHECKING:
    from pathlib import Path

# They share no root below Exception.
ONNX_RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    states.EPFail,
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.NoModel,
    states.NoSuchFile,
    states.NotImplemented,
    states.RuntimeException,
)


def open_session(model: Path | bytes, *, threads: int = 1) -> onnxruntime.InferenceSession:
    """Load a model for the CPU; raises one of `ONNX_RUNTIME_ERRORS` where it cannot be loaded.

    Args:
        model: A file or its content.
        threads: Inside one operator; operators run one after the other.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; they raise too
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run_session(
    session: onnxruntime.InferenceSession, images: NDArray[np.float32], *, batch_size: int = 64
) -> NDArray[np.float32]:
    """Logits `(n, classes)` of images `(n, channels, height, width)`, in input order; `n` is at least 1."""
    (model_input,) = session.get_inputs()
    starts = range(0, len(images), batch_size)
    batches = [session.run(None, {model_input.name: images[start : start + batch_size]})[0] for start in starts]
    logits: NDArray[np.float32] = np.concatenate(batches)
    return logits
