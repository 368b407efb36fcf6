"""What methods promise of the networks they train: statistics of their own, and nothing left of wider ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from supernet.bundling import build_target_bundle, half_subnet
from supernet.data.batches import Normalisation, evaluation_batches
from supernet.data.images import ImageSet
from supernet.data.splits import Splits
from supernet.evaluation.accuracy import evaluate_accuracy
from supernet.evaluation.statistics import Statistics, measure_statistics, recalibrate_bn
from supernet.network.checkpoint import load_supernet
from supernet.network.elastic_net import Supernet
from supernet.network.extract import embed_subnet, extract_subnet
from supernet.network.layers import ElasticBatchNorm2d
from supernet.network.subnet import Subnet
from supernet.spaces.arch import Arch
from supernet.spaces.blocks import Act, BlockKind
from supernet.spaces.costs import blocks_of
from supernet.spaces.fixed import space_of_blocks
from supernet.spaces.ratios import arch_at_ratios
from supernet.spaces.space import SearchSpace
from supernet.spaces.stage import Stage
from supernet.training.config import TrainConfig
from supernet.training.loop import train
from supernet.training.method import Epoch
from supernet.training.methods.fine_tuning import FineTuningSettings
from supernet.training.methods.netaug import NetAug, NetAugSettings
from supernet.training.methods.us_nets import UsNetsSettings
from supernet.training.passes import run_passes


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def statistics_of(subnet: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state_of(subnet).items() if "running_" in name}


def normalisation(images: ImageSet) -> Normalisation:
    return Normalisation(*images.normalisation())


def perturbed(supernet: Supernet) -> Supernet:
    """With normalisations, biases and kernel matrices that do something."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(0.75 + noise.abs() / 2)
            elif parameter.ndim == 1 or "kernel_matrices" in name:
                parameter.add_(noise / 10)
    return supernet


# ---------------------------------------------------------------------- BN statistics


def statistics_in_train_mode(supernet: Supernet, arch: Arch, batches: Sequence[Tensor]) -> Statistics:
    """What an arch leaves in the supernet's own normalisations, by their names in the subnet."""
    norms = {
        f"blocks.{place}.layers.{layer.name}.norm": (supernet.blocks[index].layers[layer.name].norm, layer.out_chs)
        for place, (index, spec) in enumerate(supernet.space.walk(arch))
        for layer in spec.layers
        if layer.norm
    }
    counts: dict[nn.Module, int] = {}
    for norm, _ in norms.values():
        assert isinstance(norm, ElasticBatchNorm2d)
        norm.momentum = 1.0  # the statistics are those of the last batch
        norm.register_forward_pre_hook(
            lambda norm, inputs: counts.update({norm: inputs[0].numel() // inputs[0].shape[1]})
        )
    sums = {name: [torch.zeros(chs), torch.zeros(chs)] for name, (_, chs) in norms.items()}
    supernet.train()
    for batch in batches:
        with torch.no_grad():
            supernet(batch, arch)
        for name, (norm, chs) in norms.items():
            biased = (counts[norm] - 1) / counts[norm]
            sums[name][0] += len(batch) * norm.running_mean[:chs]
            sums[name][1] += len(batch) * biased * norm.running_var[:chs]
    n_images = sum(map(len, batches))
    return {name: (mean / n_images, variance / n_images) for name, (mean, variance) in sums.items()}


@pytest.mark.parametrize("which", ["smallest", "largest", "random"])
def test_a_subnet_is_recalibrated_to_what_it_leaves_in_the_supernet(tiny_space: SearchSpace, which: str) -> None:
    supernet = perturbed(Supernet(tiny_space, torch.Generator().manual_seed(0)))
    arch = tiny_space.sample(np.random.default_rng(5)) if which == "random" else getattr(tiny_space, which)()
    generator = torch.Generator().manual_seed(1)
    size = (3, arch.resolution, arch.resolution)
    batches = [2 * torch.randn(n, *size, generator=generator) + n for n in (6, 3, 5)]
    subnet = extract_subnet(supernet, arch)
    recalibrate_bn(subnet, batches)
    expected = statistics_in_train_mode(supernet, arch, batches)
    found = statistics_of(subnet)
    assert len(found) == 2 * len(expected) > 0
    for name, (mean, variance) in expected.items():
        # Elastic and plain convolutions add in another order.
        torch.testing.assert_close(found[f"{name}.running_mean"], mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[f"{name}.running_var"], variance, rtol=1e-4, atol=1e-5)


SLIM = SearchSpace(
    "tiny",
    stages=(
        Stage(BlockKind.CONV, widths=tuple(range(8, 33)), kernel_sizes=(3,), stride=2, act=Act.RELU6),
        Stage(BlockKind.SEPARABLE, widths=tuple(range(16, 65)), kernel_sizes=(3,), act=Act.RELU6, out_act=Act.RELU6),
        Stage(BlockKind.POOL),
        Stage(BlockKind.LINEAR, widths=(10,), norm=False, bias=True),
    ),
    resolutions=(12,),
    divisor=1,
)


@pytest.fixture
def slimmable(config: TrainConfig, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supernet:
    """Trained at four widths with shared normalisation."""
    monkeypatch.setattr("supernet.training.loop.find_space", lambda _: SLIM)
    settings = UsNetsSettings(widths=(0.25, 0.5, 0.75, 1.0))
    return train(replace(config, method="us_nets", settings=settings, epochs=4), images, tmp_path)


def test_recalibrating_one_width_leaves_the_others_as_they_are(slimmable: Supernet, images: ImageSet) -> None:
    batches = [batch for batch, _ in evaluation_batches(images, normalisation(images), resolution=12, batch_size=20)]
    narrow, wide = (arch_at_ratios(slimmable.space, ratio) for ratio in (0.25, 1.0))
    before = state_of(slimmable)
    other = extract_subnet(slimmable, wide)
    recalibrate_bn(other, batches)
    other_before = state_of(other)
    recalibrate_bn(extract_subnet(slimmable, narrow), batches)
    for network, expected in ((slimmable, before), (other, other_before)):
        assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    again = extract_subnet(slimmable, wide)
    recalibrate_bn(again, batches)
    assert all(torch.equal(tensor, other_before[name]) for name, tensor in again.state_dict().items())


def test_a_width_nobody_listed_is_recalibrated_and_evaluated(slimmable: Supernet, images: ImageSet) -> None:
    arch = arch_at_ratios(slimmable.space, 0.51415926)
    assert arch.widths[1] == 33
    batches = list(evaluation_batches(images, normalisation(images), resolution=12, batch_size=20))
    subnet = extract_subnet(slimmable, arch)
    mixed = statistics_of(subnet)
    recalibrate_bn(subnet, [batch for batch, _ in batches])
    own = statistics_of(subnet)
    assert own
    # The narrow archs among those that were trained see other means, so no statistic may stay.
    assert all((tensor - mixed[name]).abs().min() > 0 for name, tensor in own.items())
    assert evaluate_accuracy(subnet, batches).top1 > 0.9


# ---------------------------------------------------------------------- NetAug


@pytest.fixture
def netaug(tiny_space: SearchSpace) -> NetAug:
    space = tiny_space.with_classes(2)
    return NetAug(space, space.sample(np.random.default_rng(3)), 4, NetAugSettings(alpha=0.5))


def built(method: NetAug) -> Supernet:
    return perturbed(method.build_supernet(torch.Generator().manual_seed(0)))


def shapes_of(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def macs_of(subnet: Subnet) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        subnet(torch.zeros(1, 3, subnet.resolution, subnet.resolution))
    return int(counter.get_total_flops()) // 2


def test_the_target_leaves_the_wider_networks_as_a_plain_network(netaug: NetAug) -> None:
    blocks = blocks_of(netaug.target_space, netaug.target)
    plain = Subnet(blocks, norm_eps=netaug.target_space.norm_eps).eval()
    target = extract_subnet(built(netaug), netaug.space.smallest())
    assert shapes_of(target) == shapes_of(plain)
    assert sum(p.numel() for p in target.parameters()) == sum(p.numel() for p in plain.parameters())
    assert macs_of(target) == macs_of(plain) == sum(spec.macs for spec in blocks)
    embedded = embed_subnet(target, blocks, name="target", norm_eps=netaug.space.norm_eps)
    assert shapes_of(embedded) == shapes_of(Supernet(space_of_blocks("plain", blocks), torch.Generator()))


def test_augmented_networks_alone_teach_what_the_target_does_not_have(netaug: NetAug) -> None:
    generator = torch.Generator().manual_seed(1)
    size = netaug.space.resolutions[0]
    images, labels = torch.randn(8, 3, size, size, generator=generator), torch.arange(8) % 2
    supernet = built(netaug).train()
    (phase,) = netaug.phases()
    target, wider = netaug.passes(Epoch(0, phase, 0, 4), 0, np.random.default_rng(0))
    assert wider.arch != target.arch

    def gradients(arch: Arch) -> list[Tensor]:
        twin = copy.deepcopy(supernet)
        F.cross_entropy(twin(images, arch), labels).backward()  # type: ignore[no-untyped-call]
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in twin.parameters()]

    owned = copy.deepcopy(supernet)
    with torch.no_grad():
        for parameter in owned.parameters():
            parameter.zero_()
        for index, spec in netaug.space.walk(target.arch):
            for view in owned.blocks[index].slices(spec).values():
                view.fill_(1)
    run_passes(supernet, [target, wider], images, labels)
    n_owned = n_augmented = 0
    for own, found, of_target, of_wider in zip(
        owned.parameters(), supernet.parameters(), gradients(target.arch), gradients(wider.arch), strict=True
    ):
        mine, gradient = own > 0, torch.zeros_like(own) if found.grad is None else found.grad
        assert (of_target[~mine] == 0).all()
        torch.testing.assert_close(gradient[~mine], 0.5 * of_wider[~mine], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(gradient[mine], (of_target + 0.5 * of_wider)[mine], rtol=1e-4, atol=1e-6)
        n_owned += int(mine.sum())
        n_augmented += int((of_wider[~mine] != 0).sum())
    assert n_owned == sum(spec.params for spec in blocks_of(netaug.space, target.arch))
    assert n_augmented > n_owned


def test_without_weight_of_the_augmented_networks_the_target_trains_as_alone(
    config: TrainConfig, tiny_space: SearchSpace, images: ImageSet, tmp_path: Path
) -> None:
    initial = perturbed(Supernet(tiny_space.with_classes(2), torch.Generator().manual_seed(8)))
    trained = {
        method: train(
            replace(config, method=method, settings=settings, epochs=4), images, tmp_path / method, initial=initial
        )
        for method, settings in (("netaug", NetAugSettings(alpha=0.0)), ("fine_tuning", FineTuningSettings()))
    }
    inside, alone = (state_of(extract_subnet(net, net.space.smallest())) for net in trained.values())
    assert set(inside) == set(alone)
    for name, tensor in alone.items():
        # Slices of wider weights are added up in another order.
        torch.testing.assert_close(inside[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_bundled_target_has_the_statistics_of_its_recalibration(
    netaug: NetAug, images: ImageSet, tmp_path: Path
) -> None:
    supernet, target = built(netaug), netaug.space.smallest()
    for name, buffer in supernet.named_buffers():
        if "running_" in name:
            buffer.fill_(77.0)
    splits = Splits(images, images, images)
    bundle = build_target_bundle(supernet, target, splits, tmp_path, name="target", training={"seed": 0})
    loaded = load_supernet(bundle.path)
    found = statistics_of(extract_subnet(loaded, loaded.space.smallest()))
    # One batch, so the order of its images is no matter.
    ((batch, _),) = evaluation_batches(images, normalisation(images), resolution=target.resolution, batch_size=40)
    for name, statistics in measure_statistics(half_subnet(supernet, target), [batch]).items():
        for kind, expected in zip(("running_mean", "running_var"), statistics, strict=True):
            torch.testing.assert_close(found.pop(f"{name}.{kind}"), expected, rtol=1e-4, atol=1e-5)
    assert not found
