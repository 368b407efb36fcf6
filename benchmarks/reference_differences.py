"""Our supernets against the once-for-all reference code, from the same weights: logits, keys, MACs, parameters.

python benchmarks/reference_differences.py --out FILE.md

Needs the reference code. Differences are relative to how far logits spread over archs and images; beside them stand
those that a swapped epsilon of the normalisation and a single wrong running mean would make.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.network.layers import ElasticBatchNorm2d
from supernet.ofa.weights import import_weights
from supernet.spaces.arch import Arch
from supernet.spaces.costs import macs, params
from supernet.spaces.ofa_dicts import ofa_from_arch
from supernet.spaces.presets import load_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from supernet.ofa.weights import ImportedWeights
    from supernet.spaces.space import SearchSpace

    Load = Callable[[str], ModuleType]
    Choice = dict[str, Any]

# What the reference's modules import for images, downloads and progress bars, which none of its networks needs.
ABSENT = (
    "gdown",
    "tqdm",
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)
N_IMAGES = 2
N_PASSES = 8
EPSILONS = {1e-5: 1e-3, 1e-3: 1e-5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="markdown file for the table")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--archs", type=int, default=20, help="archs to draw, beside the smallest and the largest")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = [figures(load_reference, family, arguments.archs) for family in arguments.families]
    head = [column.replace("_", " ") for column in lines[0]]
    rows = [[f"{value:.1e}" if isinstance(value, float) else str(value) for value in line.values()] for line in lines]
    table = [head, ["---"] * len(head), *rows]
    arguments.out.write_text("".join(f"| {' | '.join(row)} |\n" for row in table), encoding="utf-8")


def figures(load: Load, family: str, n_archs: int) -> dict[str, Any]:
    """One line of the table, printed to stdout as well."""
    started = time.perf_counter()
    pair = build_pair(load, family)
    compared = compare(pair, load, n_archs)
    costs = [(macs(pair.space, arch), params(pair.space, arch)) for arch in compared.archs]
    line = {
        "family": family,
        "archs": len(compared.archs),
        "keys": pair.imported.keys,
        "supernet": compared.difference("reference", "supernet"),
        "extracted": compared.difference("reference_static", "extracted"),
        "supernet_to_extracted": compared.difference("supernet", "extracted"),
        "equal_macs": sum(ours == theirs for (ours, _), theirs in zip(costs, compared.macs, strict=True)),
        "equal_params": sum(ours == theirs for (_, ours), theirs in zip(costs, compared.params, strict=True)),
        "swapped_epsilon": swap_epsilon(pair, compared),
        "wrong_mean": min(move_means(pair, compared).values()),
    }
    print(json.dumps(line))
    print(f"{family} after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return line


# ---------------------------------------------------------------------------- the reference


class StandIn(ModuleType):
    """A module in which every name is an empty class."""

    __path__: Any = ()  # so that it may have submodules

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return sys.modules.get(f"{self.__name__}.{name}") or type(name, (), {})


def load_reference(name: str) -> ModuleType:
    """Import a module of the reference by its name below `ofa`.

    What it imports for images, downloads and progress bars has stand-ins, for as long as the import lasts: others ask
    whether these packages are there.
    """
    absent = [name for name in ABSENT if find_spec(name.partition(".")[0]) is None]
    sys.modules.update((name, StandIn(name)) for name in absent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(f"ofa.{name}")
    finally:
        for stand_in in absent:
            del sys.modules[stand_in]


class Unfilled(TorchFunctionMode):
    """Modules built inside get no initial weights, which would take longer than all else: others are copied in."""

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if function in (nn.init.kaiming_uniform_, nn.init.uniform_, nn.init.normal_):
            return given["tensor"] if "tensor" in given else args[0]
        return function(*args, **given)


@dataclass(frozen=True)
class ReferenceFamily:
    """Names and arguments of the reference's classes for one of our spaces."""

    network: str
    macs_model: str
    arguments: dict[str, Any]

    def build(self, load: Load) -> Any:
        """A network as the reference's model zoo builds it, but without weights."""
        # It sorts the lists it is given in place.
        copied = {key: list(value) if isinstance(value, tuple) else value for key, value in self.arguments.items()}
        networks = load("imagenet_classification.elastic_nn.networks")
        with Unfilled():
            return getattr(networks, self.network)(dropout_rate=0, **copied)


def _mobile(network: str, macs_model: str, width_mult: float) -> ReferenceFamily:
    lists = {"ks_list": (3, 5, 7), "expand_ratio_list": (3, 4, 6), "depth_list": (2, 3, 4)}
    return ReferenceFamily(network, macs_model, {"width_mult": width_mult, **lists})


FAMILIES = {
    "ofa_mbv3_w1.0": _mobile("OFAMobileNetV3", "Mbv3FLOPsModel", 1.0),
    "ofa_mbv3_w1.2": _mobile("OFAMobileNetV3", "Mbv3FLOPsModel", 1.2),
    "ofa_proxyless_w1.3": _mobile("OFAProxylessNASNets", "ProxylessNASFLOPsModel", 1.3),
    "ofa_resnet50": ReferenceFamily(
        "OFAResNets",
        "ResNet50FLOPsModel",
        {"depth_list": (0, 1, 2), "expand_ratio_list": (0.2, 0.25, 0.35), "width_mult_list": (0.65, 0.8, 1.0)},
    ),
}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The reference draws archs from the generator of the whole process."""
    state = random.getstate()
    random.seed(seed)  # noqa: TID251  (see above)
    try:
        yield
    finally:
        random.setstate(state)


# ---------------------------------------------------------------------------- weights


@torch.no_grad()
def fill_weights(network: Any, size: int) -> None:
    """Give a network of the reference random weights, and statistics of real forward passes, moved a little.

    Activations stay normalised and logits depend on archs and images, so that a small error anywhere is seen.
    """
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.named_parameters():
        tensor.copy_(_random_weights(name, tensor.shape, generator))
    for block in network.blocks:
        shortcut = block.downsample if hasattr(block, "downsample") else block.shortcut
        if type(shortcut).__name__ == "IdentityLayer":
            *_, last = (module for module in block.modules() if isinstance(module, nn.BatchNorm2d))
            last.weight.mul_(0.3)
    norms: list[Any] = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum = norms[0].momentum
    network.train()
    # The largest arch reaches every channel; the others are mixed in as in training.
    for norm in norms:
        norm.momentum = 1.0
    network.set_max_net()
    network(random_images(4, size, generator))
    for norm in norms:
        norm.momentum = momentum
    with seeded(1):
        for _ in range(N_PASSES):
            network.sample_active_subnet()
            network(random_images(4, size, generator))
    for norm in norms:
        mean, variance = norm.running_mean, norm.running_var
        mean += 0.1 * variance.sqrt() * torch.randn(mean.shape, generator=generator)
        variance *= 0.8 + 0.4 * torch.rand(variance.shape, generator=generator)
    network.eval()


def _random_weights(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Weights of one tensor.

    As in trained networks, centres of kernels and leading channels weigh more, and residual branches less: else
    activations of archs of different sizes would drift apart from layer to layer and hide errors.
    """
    noise = torch.randn(shape, generator=generator)
    if name.endswith("_matrix"):
        return torch.eye(len(noise)) + 0.05 * noise
    if len(shape) == 4:
        offsets = (torch.arange(shape[-1]) - shape[-1] // 2).abs()
        distance = torch.maximum(offsets, offsets[:, None])
        leading = torch.linspace(1, 0.5, shape[1])[:, None, None]
        return noise * leading * 0.3 ** (distance - 1).clamp(min=0) * math.sqrt(2 / noise[0].numel())
    if len(shape) == 2:
        return noise / math.sqrt(shape[1])
    if name.startswith("classifier"):
        return torch.zeros(shape)  # the same for all archs
    if name.endswith(".weight"):
        return 0.5 + torch.rand(shape, generator=generator)
    return 0.5 * torch.rand(shape, generator=generator)  # positive, so that few channels are cut off by activations


def random_images(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Images that differ in colour, contrast and coarse shapes: `(count, 3, size, size)`, about normalised."""
    coarse = torch.randn(count, 3, 6, 6, generator=generator)
    shapes = F.interpolate(coarse, (size, size), mode="bilinear") * 2 * torch.rand(count, 1, 1, 1, generator=generator)
    colours = torch.randn(count, 3, 1, 1, generator=generator)
    return shapes + colours + 0.3 * torch.randn(count, 3, size, size, generator=generator)


# ---------------------------------------------------------------------------- the comparison


@dataclass(frozen=True)
class Pair:
    """A network of the reference and our supernet with its weights."""

    family: ReferenceFamily
    space: SearchSpace
    network: Any
    imported: ImportedWeights
    supernet: Supernet

    @property
    def resolution(self) -> int:
        """The smallest of the space: what is compared holds for all."""
        return self.space.resolutions[0]


def build_pair(load: Load, name: str) -> Pair:
    """The reference's network of a family, filled, and ours."""
    family, space = FAMILIES[name], load_space(name)
    network = family.build(load)
    fill_weights(network, space.resolutions[0])
    with Unfilled():
        imported = import_weights(network.state_dict(), space)
    return Pair(family, space, network, imported, build_supernet(imported.tensors, space))


def build_supernet(tensors: dict[str, Tensor], space: SearchSpace) -> Supernet:
    """Our supernet with the given weights."""
    with Unfilled():
        supernet = Supernet(space, torch.Generator())
    supernet.load_state_dict(tensors)
    return supernet.eval()


def sample_choices(pair: Pair, count: int) -> list[Choice]:
    """Architecture dictionaries: drawn by the reference, then the smallest and the largest."""
    with seeded(2):
        drawn = [{**pair.network.sample_active_subnet(), "r": pair.resolution} for _ in range(count)]
    ends = (replace(end, resolution=pair.resolution) for end in (pair.space.smallest(), pair.space.largest()))
    return [*drawn, *(ofa_from_arch(end, pair.space) for end in ends)]


@dataclass(frozen=True)
class Comparison:
    """What the same archs are to the reference and to us.

    Attributes:
        images: `(n_images, 3, size, size)`.
        choices: The reference's dictionaries; the last two are the smallest and the largest arch.
        archs: The same as ours.
        logits: `(n_archs, n_images, classes)` of the networks `reference`, `reference_static` (its extracted subnet),
            `supernet` and `extracted`.
        macs: By the reference.
        params: By the reference.
    """

    images: Tensor
    choices: list[Choice]
    archs: list[Arch]
    logits: dict[str, Tensor]
    macs: list[int]
    params: list[int]

    @property
    def spread(self) -> float:
        """Standard deviation of a class's logits over archs and images."""
        logits = self.logits["reference"]
        return float((logits - logits.mean((0, 1))).std())

    def difference(self, one: str, other: str) -> float:
        """Largest difference between the logits of two networks, relative to the spread."""
        return float((self.logits[one] - self.logits[other]).abs().max()) / self.spread

    def distance(self, index: int, logits: Tensor) -> float:
        """Largest difference of logits `(n_images, classes)` to the reference's of one arch, relative to the spread."""
        return float((self.logits["reference"][index] - logits).abs().max()) / self.spread


@torch.no_grad()
def compare(pair: Pair, load: Load, n_archs: int) -> Comparison:
    """Run drawn archs, the smallest and the largest through all four networks."""
    images = random_images(N_IMAGES, pair.resolution, torch.Generator().manual_seed(3))
    choices = sample_choices(pair, n_archs)
    archs = [Arch.from_ofa(choice, pair.space) for choice in choices]
    count_macs = getattr(load("nas.efficiency_predictor"), pair.family.macs_model)(pair.network).get_efficiency
    count_params = load("utils").count_parameters
    logits: dict[str, list[Tensor]] = {"reference": [], "reference_static": [], "supernet": [], "extracted": []}
    all_macs, all_params = [], []
    for choice, arch in zip(choices, archs, strict=True):
        # The counter leaves this arch active in its network; its "FLOPs" are millions of MACs.
        all_macs.append(round(1e6 * count_macs({**choice, "image_size": arch.resolution})))
        with Unfilled():
            static, extracted = pair.network.get_active_subnet().eval(), extract_subnet(pair.supernet, arch)
        all_params.append(count_params(static))
        logits["reference"].append(pair.network(images))
        logits["reference_static"].append(static(images))
        logits["supernet"].append(pair.supernet(images, arch))
        logits["extracted"].append(extracted(images))
    stacked = {network: torch.stack(found) for network, found in logits.items()}
    return Comparison(images, choices, archs, stacked, all_macs, all_params)


@torch.no_grad()
def swap_epsilon(pair: Pair, compared: Comparison) -> float:
    """The distance to the reference, were 1e-5 the epsilon in place of 1e-3 or the other way round.

    Returns:
        The smallest over three archs.
    """
    swapped = replace(pair.space, norm_eps=EPSILONS[pair.space.norm_eps])
    supernet = build_supernet(pair.imported.tensors, swapped)
    return min(
        compared.distance(index, supernet(compared.images, compared.archs[index]))
        for index in (0, len(compared.archs) - 2, len(compared.archs) - 1)
    )


@torch.no_grad()
def move_means(pair: Pair, compared: Comparison) -> dict[str, float]:
    """The distance to the reference, were one running mean wrong by a tenth of its standard deviation.

    Returns:
        By the name of each normalisation layer of the smallest arch: for the channel of its largest bias, which an
        activation is least likely to cut off.
    """
    index = len(compared.archs) - 2
    arch = compared.archs[index]
    distances = {}
    for position, spec in pair.space.walk(arch):
        for layer in spec.layers:
            if not layer.norm:
                continue
            name = f"blocks.{position}.layers.{layer.name}.norm"
            norm = pair.supernet.get_submodule(name)
            assert isinstance(norm, ElasticBatchNorm2d)
            channel = int(norm.bias[: layer.out_chs].argmax())
            right = norm.running_mean[channel].clone()
            norm.running_mean[channel] += 0.1 * norm.running_var[channel].sqrt()
            distances[name] = compared.distance(index, pair.supernet(compared.images, arch))
            norm.running_mean[channel] = right
    return distances


if __name__ == "__main__":
    main()
