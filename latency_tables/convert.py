"""Published latency tables in our format, with origin and licence."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latency_tables.device import DeviceProfile
from latency_tables.errors import LatencyError, TableFormatError
from latency_tables.json_values import shown
from latency_tables.table import LatencyStats, LatencyTable
from supernet.spaces.blocks import Act, BlockKind, BlockSpec

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from supernet.spaces.space import SearchSpace

_SUFFIX = "_lookup_table.yaml"
# The reference names its plain convolutions by their order.
_CONV_NAMES = ("Conv", "Conv_1", "Conv_2")


def import_ofa_tables(
    folder: str | os.PathLike[str],
    space: SearchSpace,
    device_id: str,
    *,
    device: DeviceProfile | None = None,
    resolutions: Sequence[int] | None = None,
) -> LatencyTable:
    """Read a folder of `<resolution>_lookup_table.yaml` in the once-for-all reference's MobileNetV3 grammar.

    Every row holds for the resolution of its file: a block that several files have (the head, and stages where sizes
    round alike) took different times in them, and sums shall be the published ones.

    Args:
        folder: Files of other resolutions than the space's are ignored.
        space: A MobileNetV3 space with the widths the tables were made for.
        device_id: Name of the device.
        device: Its whole profile; by default the chip is `device_id` and the runtime is the one OFA used on phones.
        resolutions: Read only these; None reads every file.

    Returns:
        A table without calibration; `source` lists resolutions, keys nobody asked for and blocks without a key.

    Raises:
        TableFormatError: There is no such folder, no file fits, a file is no such table or repeats a key, or its keys
            fit no block of the space.
        LatencyError: PyYAML is not installed.

    Source: key grammar of `MBv3LatencyTable` in OFA's tutorial, Cai et al. 2020 (arXiv 1908.09791).
    """
    if not Path(folder).is_dir():
        raise TableFormatError(f"'{folder}' is no folder; expected one of files such as 160{_SUFFIX}.")
    wanted = [size for size in space.resolutions if resolutions is None or size in resolutions]
    files = {size: Path(folder) / f"{size}{_SUFFIX}" for size in wanted}
    files = {size: path for size, path in files.items() if path.is_file()}
    if not files:
        raise TableFormatError(
            f"{folder} holds no file such as {space.resolutions[0]}{_SUFFIX}; the resolutions wanted are {wanted}."
        )
    rows_at: dict[int, dict[BlockSpec, LatencyStats]] = {}
    unknown_keys, missing_keys = 0, 0
    for resolution, path in files.items():
        entries = _load_yaml(path)
        keys = ofa_keys(space, resolution)
        unknown_keys += len(set(entries) - set(keys))
        missing_keys += len(set(keys) - set(entries))
        rows_at[resolution] = {
            spec: _read_entry(path, key, entries[key]) for key, spec in keys.items() if key in entries
        }
    if not any(rows_at.values()):
        raise TableFormatError(f"No key of {folder} fits a block of '{space.name}'. Choose the space with its widths.")
    return LatencyTable(
        device=device
        or DeviceProfile(device_id=device_id, chip=device_id, runtime="tflite", runtime_version="unknown"),
        space=space.name,
        source={
            "method": "imported from once-for-all lookup tables",
            "origin": "latency tables published by the authors of Once-for-All, in the layout of gatech-sysml/CompOFA",
            "licence": "Apache-2.0",
            "resolutions": sorted(files),
            "unknown_keys": unknown_keys,
            "missing_keys": missing_keys,
            "notes": "threads and runtime version were not published; 1 and 'unknown' are placeholders",
        },
        rows={},
        rows_at=rows_at,
    )


def ofa_keys(space: SearchSpace, resolution: int) -> dict[str, BlockSpec]:
    """The reference's key of every block of a MobileNetV3 space at one resolution.

    Raises:
        TableFormatError: The space has blocks the grammar does not know.
    """
    choice = space.resolutions.index(resolution)
    names: dict[int, str] = {}
    for position in space.positions:
        if space.stages[position.stage].kind is BlockKind.CONV and position.stage not in names:
            if len(names) == len(_CONV_NAMES):
                raise TableFormatError(f"'{space.name}' has more plain convolutions than the OFA grammar can name.")
            names[position.stage] = _CONV_NAMES[len(names)]
    keys = {}
    for index, position in enumerate(space.positions):
        for choices, spec in space.blocks_at(index):
            if choices[0] == choice:
                keys[_key(spec, names.get(position.stage, ""))] = spec
    return keys


def _key(spec: BlockSpec, conv_name: str) -> str:
    given = f"{spec.in_size}x{spec.in_size}x{spec.in_chs}"
    result = f"{spec.out_size}x{spec.out_size}x{spec.out_chs}"
    match spec.kind:
        case BlockKind.CONV:
            return f"{conv_name}-input:{given}-output:{result}"
        case BlockKind.POOL:
            return f"AvgPool2D-input:{given}-output:{result}"
        case BlockKind.LINEAR:
            return f"Logits-input:{given}-output:{spec.out_chs}"
        case BlockKind.SEPARABLE | BlockKind.INVERTED:
            return (
                f"expanded_conv-input:{given}-output:{result}-expand:{spec.mid_chs}-kernel:{spec.kernel_size}"
                f"-stride:{spec.stride}-idskip:{spec.shortcut:d}-se:{spec.se_chs > 0:d}-hs:{spec.act is Act.HSWISH:d}"
            )
        case _:
            raise TableFormatError(
                f"OFA's MobileNetV3 tables have no key for blocks of kind '{spec.kind}'. Choose a MobileNetV3 space."
            )


def _load_yaml(path: Path) -> dict[Any, Any]:
    try:
        yaml = import_module("yaml")
    except ImportError as error:
        raise LatencyError("Reading YAML tables needs PyYAML: install tailor-nas[agent].") from error
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        repeated = _repeated_key(node)
        entries = loader.construct_document(node) if node else None
    # PyYAML lets through what its conversions of dates, numbers and flags raise.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise TableFormatError(f"{path}: this is no YAML: {error}.") from error
    if repeated:
        raise TableFormatError(f"{path}: the key '{repeated}' occurs twice; keep one.")
    if not isinstance(entries, dict):
        raise TableFormatError(
            f"{path}: a lookup table maps keys to {{count, mean, std}}, got {type(entries).__name__}."
        )
    return entries


def _repeated_key(node: Any) -> str:
    """A key that a lookup table or one of its entries has twice, of which YAML would keep the last; else ''."""
    if node is None or node.id != "mapping":
        return ""
    for mapping in (node, *(value for _, value in node.value)):
        seen: set[str] = set()
        for key in [str(key.value) for key, _ in mapping.value] if mapping.id == "mapping" else []:
            if key in seen:
                return key
            seen.add(key)
    return ""


def _read_entry(path: Path, key: str, entry: Any) -> LatencyStats:
    if not isinstance(entry, dict) or set(entry) != {"mean", "std", "count"}:
        raise TableFormatError(
            f"{path}: '{key}' needs 'mean', 'std' and 'count' and nothing else, got {shown(entry)}. "
            "Latencies are in milliseconds."
        )
    try:
        return LatencyStats(entry["mean"], entry["std"], entry["count"], "mean")
    except TableFormatError as error:
        raise TableFormatError(f"{path}: '{key}': {error}") from error
