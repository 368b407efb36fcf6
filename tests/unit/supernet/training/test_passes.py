"""One step: gradients add up, soft labels teach without being taught, labels reach only those that learn from them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from supernet.network.elastic_net import Supernet
from supernet.spaces.space import SearchSpace
from supernet.training.passes import Pass, run_passes
from supernet.training.teacher import teacher_of

Gradients = dict[str, Tensor]


@pytest.fixture
def supernet(tiny_space: SearchSpace) -> Supernet:
    return Supernet(tiny_space, torch.Generator().manual_seed(0)).train()


@pytest.fixture
def batch(tiny_space: SearchSpace) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 12, 12, generator=generator), torch.randint(
        0, tiny_space.classes, (6,), generator=generator
    )


def gradients(supernet: Supernet, passes: list[Pass], images: Tensor, labels: Tensor, **options: object) -> Gradients:
    supernet.zero_grad(set_to_none=True)
    run_passes(supernet, passes, images, labels, **options)  # type: ignore[arg-type]
    found = {name: p.grad.clone() for name, p in supernet.named_parameters() if p.grad is not None}
    supernet.zero_grad(set_to_none=True)
    return found


def ends(supernet: Supernet) -> list[Pass]:
    largest, smallest = supernet.space.largest(), supernet.space.smallest()
    return [Pass(largest), Pass(smallest, labels=0.0, distil=1.0)]


def assert_close(first: Gradients, second: Gradients) -> None:
    assert set(first) == set(second)
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name], rtol=1e-4, atol=1e-6)


def test_gradients_of_passes_are_summed(supernet: Supernet, batch: tuple[Tensor, Tensor]) -> None:
    archs = [supernet.space.largest(), supernet.space.smallest()]
    both = gradients(supernet, [Pass(arch) for arch in archs], *batch)
    alone = [gradients(supernet, [Pass(arch)], *batch) for arch in archs]
    summed = {name: sum(part[name] for part in alone if name in part) for name in both}
    assert_close(both, summed)  # type: ignore[arg-type]


def test_the_first_pass_teaches_and_learns_nothing_from_it(supernet: Supernet, batch: tuple[Tensor, Tensor]) -> None:
    first, second = ends(supernet)
    together = gradients(supernet, [first, second], *batch)
    alone = gradients(supernet, [first], *batch)
    largest_only = [name for name in together if name.startswith("blocks.2.")]  # the block the smallest arch skips
    assert largest_only
    for name in largest_only:
        torch.testing.assert_close(together[name], alone[name])


def test_labels_reach_only_those_that_learn_from_them(supernet: Supernet, batch: tuple[Tensor, Tensor]) -> None:
    images, labels = batch
    passes = ends(supernet)

    def taught(targets: Tensor) -> Gradients:
        """What the second pass adds."""
        together, first = gradients(supernet, passes, images, targets), gradients(supernet, passes[:1], images, targets)
        return {name: gradient - first.get(name, torch.zeros(())) for name, gradient in together.items()}

    before, after = taught(labels), taught(labels.roll(1))
    for name, gradient in before.items():
        torch.testing.assert_close(gradient, after[name], rtol=1e-3, atol=1e-5)
    assert (gradients(supernet, passes[:1], images, labels)["blocks.0.layers.conv.conv.weight"]).abs().max() > 0


def test_weights_of_the_losses_scale_their_gradients(supernet: Supernet, batch: tuple[Tensor, Tensor]) -> None:
    arch = supernet.space.largest()
    plain = gradients(supernet, [Pass(arch)], *batch)
    for doubled in (
        gradients(supernet, [Pass(arch, labels=2.0)], *batch),
        gradients(supernet, [Pass(arch)], *batch, scale=2.0),
    ):
        assert_close(doubled, {name: 2 * gradient for name, gradient in plain.items()})


def test_a_teacher_is_asked_at_each_resolution_and_gets_no_gradient(
    supernet: Supernet, batch: tuple[Tensor, Tensor]
) -> None:
    space = supernet.space
    teacher = teacher_of(supernet)
    asked: list[int] = []
    teacher.register_forward_hook(lambda _module, inputs, _output: asked.append(inputs[0].shape[-1]))
    passes = [
        Pass(replace(arch, resolution=resolution), labels=0.0, distil=1.0)
        for arch in (space.largest(), space.smallest())
        for resolution in space.resolutions
    ]
    found = gradients(supernet, passes, *batch, teacher=teacher)
    assert asked == list(space.resolutions)
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert found
    # The largest arch already says what its own copy says, so it has nothing to learn from it.
    own = gradients(supernet, passes[:1], *batch, teacher=teacher)
    assert max(gradient.abs().max() for gradient in own.values()) < 1e-4


def test_results_tell_the_loss_of_the_labels_whatever_its_weight(
    supernet: Supernet, batch: tuple[Tensor, Tensor]
) -> None:
    images, labels = batch
    arch = supernet.space.smallest()
    (plain,) = run_passes(supernet, [Pass(arch)], images, labels)
    _, taught = run_passes(supernet, [Pass(supernet.space.largest()), Pass(arch, 0.0, 1.0)], images, labels)
    assert taught.label_loss == pytest.approx(plain.label_loss, rel=1e-4)
    assert taught.loss != pytest.approx(plain.loss, rel=1e-4)
    assert 0 <= plain.hits <= len(labels)
    (smoothed,) = run_passes(supernet, [Pass(arch)], images, labels, label_smoothing=0.3)
    assert smoothed.label_loss == pytest.approx(plain.label_loss, rel=1e-6)
    assert smoothed.loss != pytest.approx(plain.loss, rel=1e-4)


def test_half_precision_gives_nearly_the_same_gradients(supernet: Supernet, batch: tuple[Tensor, Tensor]) -> None:
    arch = supernet.space.largest()
    plain = gradients(supernet, [Pass(arch)], *batch)
    half = gradients(supernet, [Pass(arch)], *batch, autocast=torch.autocast("cpu", torch.bfloat16))
    name = "blocks.4.layers.linear.weight"
    torch.testing.assert_close(half[name], plain[name], rtol=0.2, atol=0.02)
    assert not torch.equal(half[name], plain[name])
