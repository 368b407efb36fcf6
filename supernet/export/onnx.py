"""Subnet to ONNX: one file whose bytes depend on the weights, the opset and the exporter's version, on nothing else."""

from __future__ import annotations

import copy
import hashlib
import logging
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor, nn

from supernet.errors import InvalidConfigError
from supernet.network.subnet import ConvLayer, Subnet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INPUT_NAME = "images"
OUTPUT_NAME = "logits"
BATCH_DIMENSION = "batch"
DEFAULT_OPSET = 18
# torch implements its operators for 18 and converts up to 23, the newest that every supported ONNX Runtime loads.
OPSETS = range(18, 24)


@dataclass(frozen=True, slots=True)
class ExportReport:
    """An exported file.

    Attributes:
        sha256: Of the file.
        nodes: Operators in the graph.
        seconds: Wall-clock time of the export with its checks.
    """

    path: Path
    opset: int
    ir_version: int
    size_bytes: int
    sha256: str
    nodes: int
    seconds: float


def export_onnx(subnet: Subnet, path: Path, *, opset: int = DEFAULT_OPSET) -> ExportReport:
    """Write a subnet as ONNX, whole or not at all, and check the graph.

    Args:
        subnet: Exported as in eval mode, whatever its mode or device; stays as it is.
        path: Overwritten; its folder must exist.
        opset: One of `OPSETS`.

    Returns:
        What was written. The graph takes `images`, normalised float32 `(batch, in_chs, resolution, resolution)` with
        any batch size, and gives `logits`, float32 `(batch, classes)`. Equal weights give equal bytes in every process
        and on every machine with the same torch, onnxscript and onnx.

    Raises:
        InvalidConfigError: The opset is outside the range, or this graph cannot be converted to it.

    While it runs, Python warnings are off and torch's export log shows errors only, in the whole process.
    """
    if opset not in OPSETS:
        raise InvalidConfigError(f"The opset must be {OPSETS[0]} to {OPSETS[-1]}, got {opset}.")
    started = time.perf_counter()
    model = _traced(_folded(subnet), opset)
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found != {"": opset}:
        # Where its converter fails, torch keeps the opset it started from and says so only in the log.
        raise InvalidConfigError(f"This subnet cannot be converted to opset {opset}: use {found.get('', OPSETS[0])}.")
    _strip(model)
    model.producer_name, model.producer_version = "tailor", ""
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString(deterministic=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return ExportReport(
        path=path,
        opset=opset,
        ir_version=model.ir_version,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        nodes=len(model.graph.node),
        seconds=time.perf_counter() - started,
    )


def _folded(subnet: Subnet) -> Subnet:
    """A copy on the CPU, in eval mode, with every batch normalisation folded into its convolution.

    The exporter would fold too, but takes twice as long over a graph with normalisations. In double precision and by
    +, ×, ÷ and √ alone, which IEEE 754 rounds alike on every CPU: the weights in the file depend on no instruction set.
    """
    folded = copy.deepcopy(subnet).cpu().eval().requires_grad_(False)
    for layer in folded.modules():
        if isinstance(layer, ConvLayer) and isinstance(layer.norm, nn.BatchNorm2d):
            state: dict[str, Tensor] = {name: tensor.double() for name, tensor in layer.norm.state_dict().items()}
            scale = state["weight"] / torch.sqrt(state["running_var"] + layer.norm.eps)
            shift = state["bias"] - state["running_mean"] * scale
            if layer.conv.bias is not None:
                shift = shift + layer.conv.bias.double() * scale
            weight = layer.conv.weight.double() * scale.view(-1, 1, 1, 1)
            layer.conv.weight = nn.Parameter(weight.float(), requires_grad=False)
            layer.conv.bias = nn.Parameter(shift.float(), requires_grad=False)
            layer.norm = nn.Identity()
    return folded


def _traced(subnet: Subnet, opset: int) -> Any:
    # Two images, since the exporter takes a batch of one for a constant.
    images = torch.zeros(2, subnet.in_chs, subnet.resolution, subnet.resolution)
    with _quiet():
        program = torch.onnx.export(
            subnet,
            (images,),
            dynamo=True,
            external_data=False,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            dynamic_shapes=({0: torch.export.Dim(BATCH_DIMENSION)},),
            opset_version=opset,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned no program")
        return program.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence deprecations inside torch and its list of missing optional packages; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def _strip(message: Any) -> None:
    """Clear documentation and metadata at every level: the exporter writes source lines and absolute paths there."""
    for name in ("doc_string", "metadata_props"):
        if name in message.DESCRIPTOR.fields_by_name:
            message.ClearField(name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in [value] if hasattr(value, "ListFields") else value:
                _strip(child)
