"""State dicts that torch has saved, read without running anything they hold."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from io import BytesIO
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import torch

from supernet.errors import InvalidCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

# What torch and pickle raise for damaged and foreign files.
_UNREADABLE = (EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, UnpicklingError)
_STATE = "state_dict"


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a file, by name.

    Args:
        path: Saved by `torch.save`: a state dict, alone or, beside other values, under the key `state_dict`.

    Returns:
        Tensors in CPU memory, of any type.

    Raises:
        InvalidCheckpointError: The file is absent, truncated, holds other objects than torch's own, or no state dict.
    """
    try:
        # NOTE: From memory, since torch reports a truncated file on disk as an error of the operating system.
        content = BytesIO(path.read_bytes())
    except OSError as error:
        raise InvalidCheckpointError(f"'{path}' cannot be read: {error.strerror or error}.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols other than 2, which are read as well
            loaded: Any = torch.load(content, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise InvalidCheckpointError(
            f"'{path}' is incomplete, or holds more than tensors ({type(error).__name__}). Save the network's "
            "`state_dict()` with torch."
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get(_STATE), Mapping):
        loaded = loaded[_STATE]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(name, str) for name in loaded):
        raise InvalidCheckpointError(
            f"'{path}' holds no state dict but {type(loaded).__name__}. Save the network's `state_dict()` with torch."
        )
    strange = sorted(
        name
        for name, tensor in loaded.items()
        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided
    )
    if strange:
        raise InvalidCheckpointError(
            f"'{path}' is no state dict: {strange[:5]} of {len(loaded)} entries are no plain tensors."
        )
    return dict(loaded)
