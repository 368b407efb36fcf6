"""A supernet running an arch computes what the extracted subnet computes, and only the weights of that arch learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from supernet.network.checkpoint import load_weights, save_tensors
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.network.subnet import Subnet
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.fixed import augment
from supernet.spaces.presets import load_space
from supernet.spaces.space import Dimension, SearchSpace
from supernet.spaces.stage import Stage


def width_space() -> SearchSpace:
    """Elastic widths, a skippable stage, biases beside and instead of normalisation."""
    return SearchSpace(
        "tiny_width",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 12, 16), kernel_sizes=(3,), act=Act.RELU6),
            Stage(BlockKind.SEPARABLE, depths=(0, 1, 2), kernel_sizes=(3, 5), act=Act.RELU, shortcut=True),
            Stage(
                BlockKind.INVERTED,
                widths=(16, 24),
                depths=(1, 2),
                expand_ratios=(2, 3),
                kernel_sizes=(3, 7),
                stride=2,
                act=Act.HSWISH,
                se=True,
                shortcut=True,
                bias=True,
            ),
            Stage(BlockKind.CONV, widths=(24, 32), act=Act.HSWISH, norm=False, bias=True),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(5,), norm=False, bias=True),
        ),
        resolutions=(9, 12),
        divisor=4,
        norm_eps=1e-3,
    )


def bottleneck_space() -> SearchSpace:
    """Residual bottlenecks as in ResNet-D, at sizes whose last windows are cut off."""
    return SearchSpace(
        "tiny_bottleneck",
        stages=(
            Stage(BlockKind.CONV, widths=(8, 12), kernel_sizes=(3,), stride=2, act=Act.RELU),
            Stage(BlockKind.CONV, depths=(0, 1), kernel_sizes=(3,), act=Act.RELU, shortcut=True),
            Stage(BlockKind.MAX_POOL, kernel_sizes=(3,), stride=2),
            *(
                Stage(
                    BlockKind.BOTTLENECK,
                    widths=(12, 20),
                    depths=(1, 2),
                    kernel_sizes=(3,),
                    expand_ratios=(0.25, 0.5),
                    stride=stride,
                    act=Act.RELU,
                    out_act=Act.RELU,
                    shortcut=True,
                )
                for stride in (1, 2)
            ),
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(5,), norm=False, bias=True),
        ),
        resolutions=(19, 33),
        divisor=4,
    )


def small_map_space() -> SearchSpace:
    """Large kernels on maps down to one pixel."""
    blocks = (
        Stage(
            BlockKind.INVERTED,
            widths=(8,),
            depths=(1, 2),
            kernel_sizes=(3, 5, 7),
            expand_ratios=(2, 3),
            stride=2,
            act=Act.HSWISH,
            se=True,
            shortcut=True,
        )
        for _ in range(3)
    )
    return SearchSpace(
        "tiny_small_maps",
        stages=(
            Stage(BlockKind.CONV, widths=(8,), kernel_sizes=(3,), act=Act.HSWISH),
            *blocks,
            Stage(BlockKind.POOL),
            Stage(BlockKind.LINEAR, widths=(5,), norm=False, bias=True),
        ),
        resolutions=(8, 10),
        divisor=4,
    )


def augmented_space() -> SearchSpace:
    """Around a target with squeeze-excite, by factors that give odd widths."""
    space = width_space()
    return augment(space, space.sample(np.random.default_rng(3)), 1.7, 2)


def perturbed_supernet(space: SearchSpace, seed: int = 0) -> Supernet:
    """A supernet in eval mode whose normalisation, biases and kernel matrices are far from their first values."""
    generator = torch.Generator().manual_seed(seed)
    supernet = Supernet(space, generator)
    with torch.no_grad():
        for name, tensor in supernet.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith(("norm.weight", "running_var")):
                tensor.copy_(0.75 + noise.abs() / 2)
            elif "kernel_matrices" in name:
                tensor.add_(noise / 10)
            elif name.endswith(("bias", "running_mean")):
                tensor.copy_(noise / 5)
    return supernet.eval()


SPACES = {
    "cifar_mbv3": lambda: load_space("cifar_mbv3"),
    "tiny_width": width_space,
    "tiny_bottleneck": bottleneck_space,
    "tiny_small_maps": small_map_space,
    "augmented": augmented_space,
}


@pytest.fixture(scope="module", params=list(SPACES))
def supernet(request: pytest.FixtureRequest) -> Supernet:
    return perturbed_supernet(SPACES[request.param]())


def archs_of(space: SearchSpace, n_archs: int) -> list[Arch]:
    return [space.smallest(), space.largest(), *space.from_rows(space.sample_rows(np.random.default_rng(1), n_archs))]


def images(space: SearchSpace, resolution: int, batch: int) -> Tensor:
    return torch.randn((batch, space.in_chs, resolution, resolution), generator=torch.Generator().manual_seed(2))


def assert_same_outputs(supernet: Supernet, arch: Arch, batch: int) -> None:
    x = images(supernet.space, arch.resolution, batch)
    with torch.no_grad():
        elastic = supernet(x, arch)
        static = extract_subnet(supernet, arch)(x)
    assert elastic.shape == (batch, supernet.space.classes)
    assert elastic.std() > 1e-3
    assert (elastic - static).abs().max() <= 1e-5 * max(1.0, float(elastic.abs().max()))


# ---------------------------------------------------------------------- extraction


@pytest.mark.parametrize(("batch", "n_archs"), [(1, 2), (3, 10)])
def test_extracted_subnets_compute_what_the_supernet_computes(supernet: Supernet, batch: int, n_archs: int) -> None:
    for arch in archs_of(supernet.space, n_archs):
        assert_same_outputs(supernet, arch, batch)


def test_extraction_holds_for_the_reference_space() -> None:
    space = load_space("ofa_mbv3_w1.0")
    supernet = perturbed_supernet(space)
    sampled = space.sample(np.random.default_rng(0))
    for arch in (sampled, space.largest()):
        assert_same_outputs(supernet, Arch(128, arch.depths, arch.kernel_sizes, arch.expand_ratios), 1)


def test_extraction_holds_for_weights_in_channels_last_order(supernet: Supernet) -> None:
    reordered = perturbed_supernet(supernet.space).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert_same_outputs(reordered, supernet.space.sample(np.random.default_rng(4)), 2)


def test_extraction_holds_after_a_round_trip_through_a_file(supernet: Supernet, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, supernet.state_dict(), supernet.space)
    again = Supernet(supernet.space, torch.Generator().manual_seed(99)).eval()
    load_weights(again, path)
    for arch in archs_of(supernet.space, 2):
        x = images(supernet.space, arch.resolution, 1)
        with torch.no_grad():
            assert torch.equal(again(x, arch), supernet(x, arch))
            assert torch.equal(extract_subnet(again, arch)(x), extract_subnet(supernet, arch)(x))


def test_an_extracted_subnet_shares_no_memory_with_the_supernet(supernet: Supernet) -> None:
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    subnet = extract_subnet(supernet, supernet.space.largest())
    assert not subnet.training
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in subnet.parameters())
    with torch.no_grad():
        for tensor in (*subnet.parameters(), *subnet.buffers()):
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


# ---------------------------------------------------------------------- no state


def test_archs_do_not_influence_one_another(supernet: Supernet) -> None:
    first, second = supernet.space.smallest(), supernet.space.largest()
    x = images(supernet.space, first.resolution, 2)
    before = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    with torch.no_grad():
        alone = supernet(x, first)
        supernet(images(supernet.space, second.resolution, 2), second)
        extract_subnet(supernet, second)
        assert torch.equal(supernet(x, first), alone)
    assert all(torch.equal(tensor, before[name]) for name, tensor in supernet.state_dict().items())


def test_weights_of_skipped_blocks_do_not_matter(supernet: Supernet) -> None:
    arch = supernet.space.smallest()
    x = images(supernet.space, arch.resolution, 2)
    changed = perturbed_supernet(supernet.space)
    active = {index for index, _ in supernet.space.walk(arch)}
    elastic_depth = any(slot.dimension is Dimension.DEPTH for slot in supernet.space.slots)
    assert elastic_depth is (len(active) < len(supernet.blocks))
    with torch.no_grad():
        for index, block in enumerate(changed.blocks):
            if index not in active:
                for tensor in (*block.parameters(), *block.buffers()):
                    tensor.fill_(torch.nan)
        assert torch.equal(changed(x, arch), supernet(x, arch))


def test_training_moves_only_the_leading_statistics_of_the_blocks_that_run(supernet: Supernet) -> None:
    trained = perturbed_supernet(supernet.space).train()
    arch = supernet.space.smallest()
    with torch.no_grad():
        trained(images(supernet.space, arch.resolution, 4), arch)
    walked = dict(supernet.space.walk(arch))
    before = supernet.state_dict()
    for name, after in trained.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            index, layer = int(name.split(".")[1]), name.split(".")[3]
            widths = {spec.name: spec.out_chs for spec in walked[index].layers} if index in walked else {}
            chs = widths.get(layer, 0)
            assert torch.equal(after[chs:], before[name][chs:])
            assert chs == 0 or not torch.equal(after[:chs], before[name][:chs])


# ---------------------------------------------------------------------- gradients


def gradients(supernet: Supernet, arch: Arch) -> dict[str, Tensor | None]:
    supernet.zero_grad(set_to_none=True)
    logits = supernet(images(supernet.space, arch.resolution, 2), arch)
    logits.square().sum().backward()
    return {name: parameter.grad for name, parameter in supernet.named_parameters()}


def active_mask(name: str, gradient: Tensor, subnet: nn.Module, place: int, kernels: tuple[int, ...]) -> Tensor:
    """Where a weight of the supernet is used, judged by the shape of its plain twin alone.

    A smaller kernel is cut out of the next larger one step by step, so all of the second largest one counts.
    """
    mask = torch.zeros_like(gradient, dtype=torch.bool)
    *layers, last = name.split(".")[2:]
    if "kernel_matrices" in layers:
        return ~mask
    twin = ".".join([*layers, last]).replace("reduce_", "reduce.").replace("expand_", "expand.")
    if layers[-1] == "linear":
        twin = ".".join([*layers, "linear", last])
    shape = subnet.get_parameter(f"blocks.{place}.{twin}").shape
    window = [slice(size) for size in shape[:2]]
    for size, largest in zip(shape[2:], gradient.shape[2:], strict=True):
        used = largest if size == largest else kernels[-2]
        start = (largest - used) // 2
        window.append(slice(start, start + used))
    mask[tuple(window)] = True
    return mask


def test_gradients_stay_inside_the_active_slices(supernet: Supernet) -> None:
    for arch in archs_of(supernet.space, 1):
        subnet = extract_subnet(supernet, arch)
        places = {index: place for place, (index, _) in enumerate(supernet.space.walk(arch))}
        kernels = {index: spec.kernel_size for index, spec in supernet.space.walk(arch)}
        for name, gradient in gradients(supernet, arch).items():
            index = int(name.split(".")[1])
            used = index in places
            if used and "kernel_matrices" in name:
                used = kernels[index] < int(name.split(".")[-1].split("to")[0])
            assert (gradient is not None) is used, name
            if gradient is not None:
                choices = supernet.space.stages[supernet.space.positions[index].stage].kernel_sizes
                mask = active_mask(name, gradient, subnet, places[index], choices)
                assert (gradient[~mask] == 0).all(), name
                assert (gradient[mask] != 0).any(), name
    supernet.zero_grad(set_to_none=True)


def test_gradients_of_several_archs_add_up(supernet: Supernet) -> None:
    archs = archs_of(supernet.space, 1)
    expected: dict[str, Tensor] = {}
    for arch in archs:
        for name, gradient in gradients(supernet, arch).items():
            if gradient is not None:
                expected[name] = expected.get(name, torch.zeros_like(gradient)) + gradient
    supernet.zero_grad(set_to_none=True)
    for arch in archs:
        supernet(images(supernet.space, arch.resolution, 2), arch).square().sum().backward()
    for name, parameter in supernet.named_parameters():
        if parameter.grad is None:
            assert name not in expected
        else:
            scale = max(1e-6, float(expected[name].abs().max()))
            assert (parameter.grad - expected[name]).abs().max() <= 1e-6 * scale, name
    supernet.zero_grad(set_to_none=True)


def step(network: nn.Module, logits: Tensor) -> None:
    network.zero_grad(set_to_none=True)
    nn.functional.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1]).backward()
    torch.optim.SGD(network.parameters(), lr=0.1).step()


def test_a_training_step_on_an_arch_is_a_step_of_its_subnet(supernet: Supernet) -> None:
    """With the largest kernels, since those of smaller ones are no parameters of their own."""
    space = supernet.space
    largest = {position.kernel_slot: len(space.slots[position.kernel_slot].choices) - 1 for position in space.positions}
    rows = space.sample_rows(np.random.default_rng(5), 1)
    for slot, choice in largest.items():
        if slot >= 0:
            rows[:, slot] = choice
    (arch,) = space.from_rows(space.canonicalize_rows(rows))
    elastic = perturbed_supernet(space)
    subnet: Subnet = extract_subnet(elastic, arch)
    x = images(space, arch.resolution, 6)
    step(elastic, elastic.train()(x, arch))
    step(subnet, subnet.train()(x))
    for name, tensor in extract_subnet(elastic, arch).state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(tensor, subnet.state_dict()[name], rtol=1e-4, atol=1e-5)
