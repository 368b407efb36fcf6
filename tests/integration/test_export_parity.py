"""One subnet of every family of search spaces, from its supernet to a deployment that verifies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from supernet.evaluation.statistics import recalibrate_bn
from supernet.export.folder import write_deployment
from supernet.export.manifest import BnRecalibration, Preprocessing, SupernetReference
from supernet.export.verify import verify_deployment
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.spaces.presets import load_space
from supernet.spaces.space import Dimension


def test_subnet_of_the_default_space_deploys_and_verifies(tmp_path: Path, rng: np.random.Generator) -> None:
    space = load_space("cifar_mbv3").with_classes(7)
    generator = torch.Generator().manual_seed(4)
    supernet = Supernet(space, generator)
    for name, tensor in supernet.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.3, generator=generator)
        if name.endswith(("running_var", "norm.weight")):
            tensor.uniform_(0.5, 2, generator=generator)
    rows = space.sample_rows(rng, 1)
    # Shallow: the time of an export grows with the number of layers.
    rows[:, [slot.dimension is Dimension.DEPTH for slot in space.slots]] = 0
    (arch,) = space.from_rows(space.canonicalize_rows(rows))
    images = rng.standard_normal((256, 3, arch.resolution, arch.resolution)).astype(np.float32)
    manifest = write_deployment(
        tmp_path / "deployment",
        extract_subnet(supernet, arch),
        arch=arch,
        space=space,
        preprocessing=Preprocessing(arch.resolution, mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26)),
        classes=tuple("abcdefg"),
        bn_recalibration=BnRecalibration(source="none", images=0),
        supernet=SupernetReference(name="random", weights_sha256="0" * 64),
        parity_images=images,
    )
    assert manifest.parity.images == 256
    assert manifest.parity.max_abs_diff <= 1e-4
    assert manifest.parity.top1_agreement == 1
    report = verify_deployment(tmp_path / "deployment")
    assert report.space_known
    assert report.max_abs_diff <= 1e-4


@pytest.mark.parametrize(
    "name",
    [
        "ofa_mbv3_w1.0",
        "ofa_proxyless_w1.3",
        "ofa_resnet50",
        "us_mobilenet_v1",
        "us_mobilenet_v2",
        "pss_resnet50",
        "netaug_mbv3_w0.35",
        "netaug_mcunet",
    ],
)
def test_a_subnet_of_every_family_exports_at_its_real_resolution(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    supernet = Supernet(space, torch.Generator().manual_seed(0))
    arch = replace(space.sample(np.random.default_rng(1)), resolution=space.resolutions[-1])
    subnet = extract_subnet(supernet, arch)
    images = torch.randn(8, 3, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(2))
    recalibrate_bn(subnet, [images[:4]])  # logits that depend on the image, whatever the depth
    manifest = write_deployment(
        tmp_path / "deployment",
        subnet,
        arch=arch,
        space=space,
        preprocessing=Preprocessing(arch.resolution, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        classes=tuple(map(str, range(space.classes))),
        bn_recalibration=BnRecalibration(source="images", images=4),
        supernet=SupernetReference(name="random", weights_sha256="0" * 64),
        parity_images=images,
    )
    assert manifest.parity.images == 8
    assert manifest.parity.max_abs_diff <= 1e-4
    assert manifest.parity.top1_agreement == 1
    with torch.no_grad():
        assert subnet(images).std(dim=0).mean() > 1e-2
    assert verify_deployment(tmp_path / "deployment").max_abs_diff <= 1e-4
