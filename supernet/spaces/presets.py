"""Search spaces by name, each one value, and a user's own from a file."""

from __future__ import annotations

import json
import tomllib
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supernet.errors import InvalidSpaceError
from supernet.spaces.families.cifar import cifar_mbv3
from supernet.spaces.families.netaug import (
    netaug_mcunet,
    netaug_mobilenet_v2,
    netaug_mobilenet_v3,
    netaug_proxyless,
    netaug_tiny_mobilenet_v2,
)
from supernet.spaces.families.ofa import ofa_mbv3, ofa_proxyless, ofa_resnet50
from supernet.spaces.families.slimmable import (
    PSS_RESOLUTIONS,
    US_RESOLUTIONS,
    pss_resnet50,
    slimmable_mobilenet_v1,
    slimmable_mobilenet_v2,
)
from supernet.spaces.space import SearchSpace
from supernet.strict_json import unique_keys

if TYPE_CHECKING:
    from collections.abc import Callable

_PRESETS: dict[str, Callable[[], SearchSpace]] = {
    "cifar_mbv3": cifar_mbv3,
    "ofa_mbv3_w1.0": partial(ofa_mbv3, "ofa_mbv3_w1.0", 1.0),
    "ofa_mbv3_w1.2": partial(ofa_mbv3, "ofa_mbv3_w1.2", 1.2, tuple(range(160, 225, 4))),
    "ofa_proxyless_w1.3": partial(ofa_proxyless, "ofa_proxyless_w1.3", 1.3),
    "ofa_resnet50": ofa_resnet50,
    "us_mobilenet_v1": partial(slimmable_mobilenet_v1, "us_mobilenet_v1", 0.25, US_RESOLUTIONS),
    "us_mobilenet_v2": partial(slimmable_mobilenet_v2, "us_mobilenet_v2", 0.35, US_RESOLUTIONS),
    "pss_mobilenet_v1": partial(slimmable_mobilenet_v1, "pss_mobilenet_v1", 0.75, PSS_RESOLUTIONS),
    "pss_mobilenet_v2": partial(slimmable_mobilenet_v2, "pss_mobilenet_v2", 0.75, PSS_RESOLUTIONS),
    "pss_resnet50": pss_resnet50,
    "netaug_mbv2_w0.35": partial(netaug_mobilenet_v2, 0.35, resolution=160),
    "netaug_tiny_mbv2": partial(netaug_tiny_mobilenet_v2, resolution=144),
    "netaug_mbv3_w0.35": partial(netaug_mobilenet_v3, 0.35, resolution=160),
    "netaug_proxyless_w0.35": partial(netaug_proxyless, 0.35, resolution=160),
    "netaug_mcunet": partial(netaug_mcunet, resolution=176),
}


def list_spaces() -> list[str]:
    """Names of the search spaces that come with Tailor."""
    return list(_PRESETS)


@cache
def load_space(name: str) -> SearchSpace:
    """A search space by its name.

    Raises:
        InvalidSpaceError: No such name; the message lists all.
    """
    if name not in _PRESETS:
        raise InvalidSpaceError(f"No search space '{name}'. Known are: {', '.join(_PRESETS)}.")
    return _PRESETS[name]()


def find_space(name_or_file: str) -> SearchSpace:
    """A search space by its name, or a user's own by the path of its TOML or JSON file.

    Never give it what came over a network: it reads any file it is told to.

    Raises:
        InvalidSpaceError: Neither a name nor a file, or the file holds no search space.
    """
    if name_or_file in _PRESETS:
        return load_space(name_or_file)
    path = Path(name_or_file)
    if path.suffix not in (".toml", ".json"):
        raise InvalidSpaceError(
            f"No search space '{name_or_file}'. Name a file that ends with .toml or .json, or one of: "
            f"{', '.join(_PRESETS)}."
        )
    return read_space(path)


def read_space(path: Path) -> SearchSpace:
    """Read a search space from a TOML or JSON file with the keys of `SearchSpace.to_dict`; see `docs/spaces.md`.

    Raises:
        InvalidSpaceError: The file cannot be read, holds something else, or takes the name of another space.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidSpaceError(f"'{path}' cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidSpaceError(f"'{path}' is no UTF-8 text: {error}.") from error
    try:
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise InvalidSpaceError(f"'{path}' cannot be read as {path.suffix[1:].upper()}: {error}.") from error
    try:
        space = SearchSpace.from_dict(_lists(data))
    except InvalidSpaceError as error:
        raise InvalidSpaceError(f"'{path}': {error}") from error
    if space.name in _PRESETS and space != load_space(space.name).with_classes(space.classes):
        raise InvalidSpaceError(
            f"'{path}' describes another space than the one called '{space.name}' that comes with Tailor: choose "
            "another name, latency tables are kept by it."
        )
    return space


def _lists(data: Any) -> Any:
    """`from_dict` checks every type but that of the whole."""
    if not isinstance(data, dict):
        raise InvalidSpaceError(f"A search space is an object, got {type(data).__name__}.")
    return data
