"""`tailor refine`: candidates of a service, timed here, reported, and one of them chosen."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from latency_tables.build import measure_table
from latency_tables.measure import MeasurePlan
from latency_tables.reports import reported_networks
from latency_tables.table import LatencyTable, parse_table
from latency_tables.visits import Pace
from service.cli import app as command
from service.errors import RemoteError
from service.refinement import measure_candidates
from supernet.spaces.arch import Arch
from supernet.spaces.presets import load_space

ABLE = "/v1/devices/here/tables/cifar_mbv3"


TABLE = "/v1/devices/here/tables/cifar_mbv3"


@pytest.fixture(scope="module")
def own_table(hasty_plan: MeasurePlan) -> LatencyTable:
    return measure_table(load_space("cifar_mbv3"), device_id="here", plan=hasty_plan)


@pytest.fixture
def run(client, served, own_table, hasty_plan, monkeypatch):
    """The command on the device that the table was measured on."""
    monkeypatch.setitem(measure_candidates.__kwdefaults__, "plan", hasty_plan)
    # Beside other tests the machine keeps no pace, and candidates would be left out for it.
    monkeypatch.setattr(Pace, "is_steady", lambda _pace, _visit: True)
    assert client.put(TABLE, json=own_table.to_dict()).status_code == 201
    return lambda *arguments: CliRunner().invoke(
        command, ["refine", "--server", served, "--device", "here", *arguments, "--json"]
    )


def test_candidates_are_timed_reported_and_one_is_deployed(run, client):
    # Beside other tests everything may be far slower than the table says.
    budget = 50 * client.get("/v1/devices/here/limits").json()["latency_ms"]["max"]
    done = run("--latency-ms", f"{budget}", "--candidates", "4", "--deploy")
    assert done.exit_code == 0, done.exception
    answer = json.loads(done.stdout)
    (search,) = client.get("/v1/searches").json()["items"]
    candidates = [Arch.from_dict(one["arch"]) for one in search["candidates"]]
    assert answer["arch"] == candidates[0].to_dict(), "all keep the budget, so the most accurate one is chosen"
    assert 0 < answer["measured"]["latency_ms"] <= budget
    assert answer["measured"]["candidates"] == len(candidates) == 4
    deployment = client.get(f"/v1/deployments/{answer['deployment']['id']}").json()
    assert (deployment["arch"], deployment["device"]) == (answer["arch"], "here")
    assert (answer["table_version"], client.get("/v1/devices/here").json()["tables"][0]["version"]) == (2, 2)
    reported = dict(reported_networks(parse_table(client.get(TABLE).text), load_space("cifar_mbv3")))
    assert list(reported) == candidates
    assert reported[candidates[0]] == answer["measured"]["latency_ms"]


def test_what_the_service_refuses_is_told_and_nothing_is_reported(run, client):
    for arguments, told in (
        (("--latency-ms", "1e-5"), "answered 409"),
        (("--latency-ms", "1", "--supernet", "nobody"), "nobody"),
    ):
        done = run(*arguments)
        assert isinstance(done.exception, RemoteError)
        assert told in str(done.exception)
    for arguments in (("--latency-ms", "nan"), ("--latency-ms", "0"), ("--latency-ms", "1", "--confidence", "1")):
        assert run(*arguments).exit_code == 2
    assert client.get("/v1/devices/here").json()["tables"][0]["version"] == 1
