"""A subnet becomes the supernet of one arch and comes out of it again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from supernet.network.elastic_net import Supernet
from supernet.network.extract import embed_subnet, extract_subnet
from supernet.spaces.costs import blocks_of
from supernet.spaces.presets import load_space


@pytest.mark.parametrize("name", ["cifar_mbv3", "pss_mobilenet_v2", "ofa_resnet50"])
def test_an_embedded_subnet_is_the_only_one_of_its_supernet(name: str) -> None:
    space = load_space(name).with_classes(7)
    supernet = Supernet(space, torch.Generator().manual_seed(0)).eval()
    for tensor in supernet.buffers():
        tensor.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
    arch = space.from_rows(space.sample_rows(np.random.default_rng(2), 1))[0]
    subnet = extract_subnet(supernet, arch)
    alone = embed_subnet(subnet, blocks_of(space, arch), name="alone", norm_eps=space.norm_eps)
    assert alone.space.size() == 1
    assert alone.space.classes == 7
    again = extract_subnet(alone, alone.space.smallest()).state_dict()
    assert all(torch.equal(tensor, again[key]) for key, tensor in subnet.state_dict().items())
    assert not alone.training
