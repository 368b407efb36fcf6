"""Arch: types, JSON and the dictionaries of the once-for-all reference code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from supernet.errors import InvalidArchError
from supernet.spaces.arch import Arch, find_arch
from supernet.spaces.presets import load_space
from supernet.spaces.space import SearchSpace


def ofa_choice(**changes: Any) -> dict[str, Any]:
    return {"ks": [3, 5, 7, 5] * 5, "e": [3, 4, 6, 4] * 5, "d": [2, 3, 4, 2, 3], "r": 160} | changes


def test_json_of_an_arch_is_one_line_in_field_order() -> None:
    arch = Arch(32, depths=(1, 2), kernel_sizes=(3, 0), expand_ratios=(1.5, 0), widths=(16,))
    assert arch.to_json() == (
        '{"resolution":32,"depths":[1,2],"kernel_sizes":[3,0],"expand_ratios":[1.5,0],"widths":[16]}'
    )
    assert Arch.from_json(arch.to_json()) == arch
    assert arch.arch_id == hashlib.sha256(arch.to_json().encode()).hexdigest()[:16]


def test_arch_id_is_the_same_on_every_machine() -> None:
    assert Arch(32, (1,), (3,), (2,)).arch_id == "a45317650c85332d"


def test_whole_ratios_written_as_floats_are_the_same_arch() -> None:
    assert Arch(32, expand_ratios=(3.0, 1.5)).to_json() == Arch(32, expand_ratios=(3, 1.5)).to_json()


def test_lists_become_tuples_so_that_archs_can_be_hashed() -> None:
    arch = Arch.from_dict({"resolution": 32, "depths": [1, 2]})
    assert arch.depths == (1, 2)
    assert hash(arch) == hash(Arch(32, depths=(1, 2)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2], "JSON object"),
        ({"depths": [1]}, "needs 'resolution'"),
        ({"resolution": 32, "depth": [1]}, r"\['depth'\]; allowed"),
        ({"resolution": "32"}, "'resolution' must hold whole numbers, got '32'"),
        ({"resolution": True}, "'resolution' must hold whole numbers"),
        ({"resolution": 32.0}, "'resolution' must hold whole numbers"),
        ({"resolution": None}, "'resolution' must hold whole numbers"),
        ({"resolution": 32, "depths": 2}, "'depths' must be a list"),
        ({"resolution": 32, "depths": "12"}, "'depths' must be a list"),
        ({"resolution": 32, "kernel_sizes": [3, None]}, "'kernel_sizes' must hold whole numbers, got None"),
        ({"resolution": 32, "kernel_sizes": [[3]]}, "'kernel_sizes' must hold whole numbers"),
        ({"resolution": 32, "widths": [False]}, "'widths' must hold whole numbers"),
        ({"resolution": 32, "expand_ratios": ["3"]}, "'expand_ratios' must hold numbers, got '3'"),
        ({"resolution": 32, "expand_ratios": [True]}, "'expand_ratios' must hold numbers"),
        ({"resolution": 32, "expand_ratios": [float("nan")]}, "'expand_ratios' must hold numbers, got nan"),
        ({"resolution": 32, "expand_ratios": [float("inf")]}, "'expand_ratios' must hold numbers, got inf"),
    ],
)
def test_malformed_archs_are_refused_by_name_of_the_field(data: Any, message: str) -> None:
    with pytest.raises(InvalidArchError, match=message):
        Arch.from_dict(data)


@pytest.mark.parametrize(
    "text", ["", "{", "nul", "[1]", "null", '"32"', "[" * 100_000, '{"resolution": 1' + "0" * 5000 + "}"]
)
def test_text_that_is_no_arch_is_refused(text: str) -> None:
    with pytest.raises(InvalidArchError):
        Arch.from_json(text)


def test_a_key_that_occurs_twice_is_refused_instead_of_the_last_one_read() -> None:
    with pytest.raises(InvalidArchError, match="occurs twice"):
        Arch.from_json('{"resolution":32,"resolution":24}')


@pytest.mark.parametrize("choice", [None, 3, "r", [], [["r", 160]], {1: 2}])
def test_what_is_no_ofa_dictionary_is_refused(ofa: SearchSpace, choice: Any) -> None:
    with pytest.raises(InvalidArchError, match=r"OFA dictionar(y|ies)"):
        Arch.from_ofa(choice, ofa)


def test_ofa_dictionary_becomes_the_canonical_arch(ofa: SearchSpace) -> None:
    arch = Arch.from_ofa(ofa_choice(), ofa)
    assert arch.depths == (2, 3, 4, 2, 3)
    assert arch.kernel_sizes[:8] == (3, 5, 0, 0, 3, 5, 7, 0)
    assert arch.expand_ratios[8:12] == (3, 4, 6, 4)
    assert ofa.canonicalize(arch) == arch
    assert Arch.from_ofa(ofa_choice(r=[160]), ofa) == arch
    assert Arch.from_ofa({key: tuple(v) if isinstance(v, list) else v for key, v in ofa_choice().items()}, ofa) == arch


def test_ofa_dictionary_may_give_one_value_for_all_and_keys_without_a_value(ofa: SearchSpace) -> None:
    arch = Arch.from_ofa({"wid": None, "ks": 7, "e": 6, "d": 4, "r": 224}, ofa)
    assert arch == replace(ofa.largest(), resolution=224)


def test_ofa_dictionaries_that_differ_in_skipped_blocks_only_are_one_arch(ofa: SearchSpace) -> None:
    other = ofa_choice(ks=[3, 5, 3, 3] * 5, d=[2] * 5)
    assert Arch.from_ofa(ofa_choice(d=[2] * 5), ofa) == Arch.from_ofa(other, ofa)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wid": 1}, r"unknown \['wid'\]"),
        ({"r": [160, 192]}, "list of one"),
        ({"r": []}, "list of one"),
        ({"r": 161}, "'resolution' of space 'ofa_mbv3_w1.0' must be one of"),
        ({"r": None}, "needs 'r', the resolution"),
        ({"r": "224"}, "'resolution' must hold whole numbers"),
        ({"ks": [3] * 19}, "'ks' needs 20 values or one for all, got 19"),
        ({"e": [3] * 21}, "'e' needs 20 values or one for all, got 21"),
        ({"d": [2] * 4}, "'d' needs 5 values or one for all, got 4"),
        ({"w": [0]}, r"unknown \['w'\]"),
        ({"ks": None}, r"missing \['ks'\]"),
        ({"ks": "7"}, "'kernel_sizes' must hold whole numbers"),
        ({"ks": [3, 4] + [3] * 18}, "'kernel_sizes' of stage 2, block 1 .* must be one of"),
        ({"e": [5] + [3] * 19}, "'expand_ratios' of stage 2, block 0 .* got 5"),
        ({"d": [2, 2, 2, 2, 5]}, "'depths' of stage 6 of .* got 5"),
    ],
)
def test_ofa_dictionaries_outside_the_space_are_refused(
    ofa: SearchSpace, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArchError, match=message):
        Arch.from_ofa(ofa_choice(**changes), ofa)


def test_ofa_dictionary_needs_a_resolution(ofa: SearchSpace) -> None:
    choice = ofa_choice()
    del choice["r"]
    with pytest.raises(InvalidArchError, match="needs 'r'"):
        Arch.from_ofa(choice, ofa)


def test_dict_of_an_arch_is_plain_json(ofa: SearchSpace) -> None:
    data = ofa.largest().to_dict()
    assert json.loads(json.dumps(data)) == data
    assert Arch.from_dict(data) == ofa.largest()


def test_an_arch_is_found_by_its_name_or_its_file(tmp_path: Path) -> None:
    space = load_space("cifar_mbv3")
    wanted = space.sample(np.random.default_rng(5))
    (tmp_path / "answer.json").write_text(json.dumps({"arch": wanted.to_dict(), "latency_ms": {}}))
    assert find_arch(space, str(tmp_path / "answer.json")) == wanted
    assert (find_arch(space, "smallest"), find_arch(space, "largest")) == (space.smallest(), space.largest())
    with pytest.raises(
        InvalidArchError, match=r"'smallest', 'largest' or the JSON file of one of 'cifar_mbv3'.*larger"
    ):
        find_arch(space, "larger")
    (tmp_path / "stranger.json").write_text(json.dumps(load_space("ofa_mbv3_w1.0").largest().to_dict()))
    with pytest.raises(InvalidArchError, match=r"stranger\.json"):
        find_arch(space, str(tmp_path / "stranger.json"))
