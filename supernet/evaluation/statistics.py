"""BN recalibration: every subnet needs statistics of its own, since the supernet's mix all archs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from supernet.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

# Per normalisation layer, by its name in the subnet: mean and variance of its input, `(channels,)` float32 each.
Statistics = dict[str, tuple[Tensor, Tensor]]


@torch.no_grad()
def measure_statistics(subnet: nn.Module, batches: Iterable[Tensor]) -> Statistics:
    """Measure the input mean and variance of every normalisation layer, each batch normalised by itself.

    Args:
        subnet: Its weights, statistics and mode are left as they were.
        batches: Normalised images `(n, chs, height, width)`.

    Returns:
        Means of the batches' means and *biased* variances, weighted by batch size. The variance is thus the mean of
        per-batch variances, not the pooled one.

    Raises:
        InvalidConfigError: No batch at all.

    Source: OFA `set_running_statistics`.
    """
    norms = {name: module for name, module in subnet.named_modules() if isinstance(module, nn.BatchNorm2d)}
    means = {name: torch.zeros_like(norm.running_mean) for name, norm in norms.items()}  # type: ignore[arg-type]
    variances = {name: torch.zeros_like(mean) for name, mean in means.items()}
    saved = {name: {key: tensor.clone() for key, tensor in norm.state_dict().items()} for name, norm in norms.items()}
    elements: dict[str, int] = {}
    momenta = {name: norm.momentum for name, norm in norms.items()}
    modes = [(module, module.training) for module in subnet.modules()]

    def register_counter(name: str) -> object:
        return norms[name].register_forward_hook(
            lambda _module, inputs, _output: elements.update({name: inputs[0].numel() // inputs[0].shape[1]})
        )

    hooks = [register_counter(name) for name in norms]
    total = 0
    try:
        # Momentum 1 leaves the batch's own mean and unbiased variance in the running statistics.
        for norm in norms.values():
            norm.momentum = 1.0
            norm.reset_running_stats()  # 0 × inf is not 0
        subnet.train()
        for batch in batches:
            subnet(batch)
            total += len(batch)
            for name, norm in norms.items():
                unbiased = (elements[name] - 1) / elements[name]
                means[name] += len(batch) * norm.running_mean  # type: ignore[operator]
                variances[name] += len(batch) * unbiased * norm.running_var  # type: ignore[operator]
    finally:
        for hook in hooks:
            hook.remove()  # type: ignore[attr-defined]
        for name, norm in norms.items():
            norm.momentum = momenta[name]
            norm.load_state_dict(saved[name])
        for module, training in modes:
            module.training = training
    if total == 0:
        raise InvalidConfigError("BN recalibration needs at least one batch of images, got none.")
    return {name: (means[name] / total, variances[name] / total) for name in norms}


@torch.no_grad()
def apply_statistics(subnet: nn.Module, statistics: Statistics) -> None:
    """Write measured statistics into the normalisation layers of a subnet, in place."""
    for name, (mean, variance) in statistics.items():
        norm = subnet.get_submodule(name)
        norm.running_mean.copy_(mean)  # type: ignore[operator]
        norm.running_var.copy_(variance)  # type: ignore[operator]


def recalibrate_bn(subnet: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the BN statistics of a subnet by those of the given images, in place; see `measure_statistics`."""
    apply_statistics(subnet, measure_statistics(subnet, batches))
