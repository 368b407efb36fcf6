"""What can be built, trained, evaluated, searched and exported. No web, no database.

spaces      what can be built: Arch, SearchSpace, BlockSpec
bundle      a trained supernet as a folder
network     how it computes
data        images and labels
training    weights for all subnets at once
evaluation  how good a subnet is, and its BN statistics
predictors  how good it will be
search      which subnet
export      a subnet as a verified ONNX file
pools       PSS-Net's final choice per pool, and one set of weights that switches between them
deployment  bundle and arch to a deployment folder: the stages above in a row
bundling    a trained supernet to a bundle: population, predictor, calibration

Importing this package imports no torch; names that need it load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from supernet.spaces.arch import Arch
from supernet.spaces.blocks import BlockSpec
from supernet.spaces.costs import blocks_of, macs, params
from supernet.spaces.presets import list_spaces, load_space
from supernet.spaces.space import SearchSpace

if TYPE_CHECKING:
    from supernet.network.checkpoint import load_supernet
    from supernet.network.elastic_net import Supernet
    from supernet.network.extract import extract_subnet
    from supernet.pools.runtime import PoolRuntime

__all__ = [
    "Arch",
    "BlockSpec",
    "PoolRuntime",
    "SearchSpace",
    "Supernet",
    "blocks_of",
    "extract_subnet",
    "list_spaces",
    "load_space",
    "load_supernet",
    "macs",
    "params",
]

# By string, so that import contracts see no torch below this package.
_LAZY = {
    "PoolRuntime": "supernet.pools.runtime",
    "Supernet": "supernet.network.elastic_net",
    "extract_subnet": "supernet.network.extract",
    "load_supernet": "supernet.network.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'supernet' has no attribute '{name}'")
    return getattr(import_module(_LAZY[name]), name)
