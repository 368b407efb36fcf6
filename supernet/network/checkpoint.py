"""Weights in safetensors, tied to their search space by its fingerprint. Nothing is ever unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from supernet.bundle import open_bundle
from supernet.errors import FingerprintMismatchError, InvalidBundleError
from supernet.network.elastic_net import Supernet
from supernet.spaces.costs import params

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.spaces.space import SearchSpace

FORMAT = "tailor-weights/1"
HEADER_KEY = "tailor"


def save_tensors(path: Path, tensors: dict[str, Tensor], space: SearchSpace, **metadata: Any) -> None:
    """Write tensors and JSON metadata to one safetensors file, whole or not at all.

    Args:
        path: Overwritten.
        tensors: Copied to contiguous CPU memory.
        space: Its fingerprint is stored.
        metadata: JSON values, read back by `load_tensors`.
    """
    header = {"format": FORMAT, "space": space.name, "space_fingerprint": space.fingerprint, "metadata": metadata}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    partial = path.with_name(path.name + ".partial")
    # One key only: safetensors writes several in random order, and equal tensors should give equal files.
    save_file(plain, partial, metadata={HEADER_KEY: json.dumps(header, sort_keys=True)})
    partial.replace(path)


def load_tensors(path: Path, space: SearchSpace) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        InvalidBundleError: The file is absent, truncated or of another format.
        FingerprintMismatchError: It was made for another search space.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise InvalidBundleError(f"'{path}' cannot be read as safetensors: {error}. Is the file complete?") from error
    found_format = header.get("format") if isinstance(header, dict) else None
    if found_format != FORMAT:
        raise InvalidBundleError(f"'{path}' is no Tailor weights file: format {found_format!r}, not '{FORMAT}'.")
    found = str(header.get("space_fingerprint"))
    if found != space.fingerprint:
        raise FingerprintMismatchError(
            f"'{path}' was made for the space '{header.get('space')}' ({found[:12]}), not for '{space.name}' "
            f"({space.fingerprint[:12]}). Load it with the space of its own bundle.",
            expected=space.fingerprint,
            found=found,
        )
    metadata = header.get("metadata")
    if not isinstance(metadata, dict):
        raise InvalidBundleError(f"'{path}' has no readable metadata: expected an object, got {metadata!r}.")
    return tensors, metadata


def load_weights(supernet: Supernet, path: Path) -> None:
    """Fill a supernet from a file of `save_tensors`; half-precision weights are widened.

    Raises:
        InvalidBundleError: As `load_tensors`, or a tensor is missing, unknown, of another shape, no floating-point one
            where the supernet's is, or not finite; nothing is loaded.
    """
    tensors, _ = load_tensors(path, supernet.space)
    expected = supernet.state_dict()
    wrong = sorted(set(expected) ^ set(tensors)) or [
        name
        for name, tensor in tensors.items()
        if tensor.shape != expected[name].shape or tensor.is_floating_point() != expected[name].is_floating_point()
    ]
    if wrong:
        raise InvalidBundleError(
            f"'{path}' does not fit '{supernet.space.name}': {len(wrong)} tensors, first {wrong[0]}."
        )
    if unusable := [name for name, tensor in tensors.items() if not tensor.float().isfinite().all()]:
        raise InvalidBundleError(
            f"'{path}' holds NaN or infinite weights in {len(unusable)} tensors, first {unusable[0]}."
        )
    supernet.load_state_dict(tensors)


def load_supernet(path: Path | str) -> Supernet:
    """Load the supernet of a bundle, in eval mode.

    Args:
        path: A bundle's folder, or the name of a shipped one.

    Raises:
        InvalidBundleError: The bundle is broken.
        MissingPartError: It has no weights.
    """
    bundle = open_bundle(path)
    # Before the memory is taken: a number holds at least one byte.
    needed, held = params(bundle.space, bundle.space.largest()), bundle.weights_path.stat().st_size
    if needed > held:
        raise InvalidBundleError(
            f"'{bundle.weights_path}' does not fit '{bundle.space.name}': its {held} bytes cannot hold the {needed} "
            "weights of the largest subnet."
        )
    # Every initial weight is overwritten, so the generator does not matter.
    supernet = Supernet(bundle.space, torch.Generator())
    load_weights(supernet, bundle.weights_path)
    return supernet.eval()
