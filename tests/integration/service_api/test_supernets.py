"""What can be searched, and what a table has to hold."""

from __future__ import annotations

from latency_tables.table import SPEC_FIELDS, spec_from_dict
from supernet.spaces.presets import load_space


def test_a_supernet_shows_space_predictor_and_provenance(client):
    shown = client.get("/v1/supernets/cifar_mbv3").json()
    assert shown["id"] == shown["space"] == "cifar_mbv3"
    assert shown["resolutions"] == shown["predictor"]["resolutions"] == [24, 28, 32]
    assert shown["predictor"]["quality"]["n_archs"] == 60
    assert len(shown["classes"]) == 10
    assert shown["space_fingerprint"] == load_space("cifar_mbv3").fingerprint
    assert (shown["is_default"], shown["deployable"]) == (True, True)
    assert shown["created_at"].endswith("Z")


def test_missing_parts_show(client):
    listed = {item["id"]: item for item in client.get("/v1/supernets").json()["items"]}
    assert set(listed) == {"cifar_mbv3", "search_only", "weights_only"}
    assert listed["search_only"]["deployable"] is False
    assert listed["weights_only"]["predictor"] is None
    assert [name for name, item in listed.items() if item["is_default"]] == ["cifar_mbv3"]


def test_the_blocks_of_a_space_are_the_keys_of_its_tables(client):
    answer = client.get("/v1/spaces/cifar_mbv3/blocks").json()
    assert answer["next_cursor"] is None
    assert all(list(item) == list(SPEC_FIELDS) for item in answer["items"])
    assert tuple(map(spec_from_dict, answer["items"])) == load_space("cifar_mbv3").distinct_blocks()
