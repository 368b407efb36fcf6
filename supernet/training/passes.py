"""One step of training: the archs that run on a batch, what each learns from, and their summed gradients."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor

from supernet.data.batches import resize_batch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import nn

    from supernet.network.elastic_net import Supernet
    from supernet.spaces.arch import Arch


@dataclass(frozen=True, slots=True)
class Pass:
    """An arch that runs forward and backward in a step.

    Attributes:
        arch: Of the supernet's space.
        labels: Weight of the cross-entropy with the labels.
        distil: Weight of the cross-entropy with soft labels: those of the teacher where there is one, else those of
            the step's first pass (in-place distillation).
    """

    arch: Arch
    labels: float = 1.0
    distil: float = 0.0


@dataclass(frozen=True, slots=True)
class PassResult:
    """What a pass came to.

    Attributes:
        loss: What its gradient is of.
        label_loss: Cross-entropy with the labels, whatever its weight, not smoothed.
        hits: Images whose largest logit is that of their label.
    """

    loss: float
    label_loss: float
    hits: int


def run_passes(
    supernet: Supernet,
    passes: Sequence[Pass],
    images: Tensor,
    labels: Tensor,
    *,
    teacher: nn.Module | None = None,
    label_smoothing: float = 0.0,
    scale: float = 1.0,
    autocast: AbstractContextManager[None] | None = None,
) -> list[PassResult]:
    """Run passes one after another and add their gradients to those that are there.

    Args:
        supernet: In train mode.
        passes: In order; the first one teaches the others where there is no teacher.
        images: Normalised `(n, chs, size, size)`, resized for each arch.
        labels: `(n,)`.
        teacher: A plain network with as many classes. It runs without gradient at the resolution of each pass, in the
            mode it is in: in train mode its normalisation follows the resolution.
        label_smoothing: Share of the target spread over all classes.
        scale: Of all gradients: the share of these images in the step.
        autocast: In which supernet and teacher run; can be entered again and again.

    Returns:
        One result per pass.

    Source: gradients are summed and not averaged, as in OFA, US-Nets, PSS-Net and NetAug.
    """
    results = []
    soft: dict[int, Tensor] = {}
    for number, one in enumerate(passes):
        batch = resize_batch(images, one.arch.resolution)
        with autocast or nullcontext():
            logits = supernet(batch, one.arch).float()
            taught = _soft_labels(soft, teacher, batch) if one.distil else None
        learnt = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        label_loss = F.cross_entropy(logits.detach(), labels) if label_smoothing else learnt
        loss = one.labels * learnt
        if taught is not None:
            loss = loss + one.distil * F.cross_entropy(logits, taught)
        (scale * loss).backward()  # type: ignore[no-untyped-call]
        if number == 0 and teacher is None:
            soft[0] = logits.detach().softmax(1)
        results.append(PassResult(loss.item(), label_loss.item(), int((logits.argmax(1) == labels).sum())))
    return results


def _soft_labels(known: dict[int, Tensor], teacher: nn.Module | None, batch: Tensor) -> Tensor:
    """Of the first pass, or of the teacher at the batch's resolution, asked once."""
    size = 0 if teacher is None else batch.shape[-1]
    if size not in known and teacher is not None:
        with torch.no_grad():
            known[size] = teacher(batch).float().softmax(1)
    return known[size]
