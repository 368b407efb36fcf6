"""`tailor search`, `tailor front` and `tailor fleet`, as a user runs them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from latency_tables.device import DeviceProfile
from latency_tables.estimator import LatencyEstimator
from latency_tables.table import LatencyStats, LatencyTable, save_table
from supernet.spaces.arch_csv import read_archs
from supernet.spaces.presets import load_space

SPACE = load_space("cifar_mbv3")
SUPERNET = ("--supernet", "cifar_mbv3")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def table_of(device_id: str, *, kernels: bool) -> LatencyTable:
    """A device on which work costs time, or on which large kernels do."""
    device = DeviceProfile(device_id=device_id, chip="Bench", runtime="ort", runtime_version="1.0")
    rows = {
        spec: LatencyStats(0.02 + spec.kernel_size**2 * spec.macs / 2e8 if kernels else 0.01 + spec.macs / 1e7)
        for spec in SPACE.distinct_blocks()
    }
    return LatencyTable(device, SPACE.name, {"measured_by": "a test"}, rows)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for name, kernels in (("plain", False), ("kernels", True)):
        table = table_of(name, kernels=kernels)
        if kernels:
            table = replace(table, energy_mj={spec: 2 * stats.value_ms for spec, stats in table.rows.items()})
        save_table(table, folder / f"{name}.json")
    return folder


def estimate(tables: Path, name: str, arch: dict[str, object]) -> float:
    from supernet.spaces.arch import Arch

    estimator = LatencyEstimator(table_of(name, kernels=name == "kernels"), SPACE)
    return estimator.estimate([Arch.from_dict(arch)])[0].estimated_ms


def test_every_kind_of_budget_is_kept(tables: Path) -> None:
    budgets = {"macs": 12e6, "params": 900e3, "size-bytes": 850e3, "peak-memory-bytes": 40e3, "energy-mj": 8}
    options = [text for name, value in budgets.items() for text in (f"--{name}", f"{value:g}")]
    command = ("search", *SUPERNET, "--table", str(tables / "kernels.json"), "--latency-ms", "5", *options)
    command += ("--precision", "int8")
    done = run(*command, "--evaluations", "1000", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(found[name.replace("-", "_")] <= value for name, value in budgets.items())
    assert found["latency_ms"]["estimated"] <= 5
    assert found["size_bytes"] == found["params"]
    shown = run(*command, "--evaluations", "500").stdout
    assert "peak memory" in shown
    assert "energy" in shown


def test_the_fastest_accurate_subnet(tables: Path) -> None:
    command = ("search", *SUPERNET, "--table", str(tables / "plain.json"), "--json")
    best = json.loads(run(*command, "--latency-percent", "50").stdout)
    least = best["accuracy"]["predicted"] - 0.01
    fastest = json.loads(run(*command, "--accuracy-min", str(least)).stdout)
    assert fastest["accuracy"]["predicted"] >= least
    assert fastest["latency_ms"]["estimated"] < best["latency_ms"]["estimated"]
    done = run(*command, "--accuracy-min", "0.9999")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the most accurate one reaches" in done.stderr


def test_one_subnet_for_two_devices(tables: Path) -> None:
    both = ("--table", str(tables / "plain.json"), "--table", str(tables / "kernels.json"))
    done = run("search", *SUPERNET, *both, "--latency-ms", "2", "--latency-ms", "4", "--json", "--evaluations", "1000")
    found = json.loads(done.stdout)
    assert found["latencies"]["plain"]["estimated"] == pytest.approx(estimate(tables, "plain", found["arch"]))
    assert found["latencies"]["plain"]["estimated"] <= 2
    assert found["latencies"]["kernels"]["estimated"] <= 4
    done = run("search", *SUPERNET, *both, "--latency-ms", "2", "--latency-ms", "0.01")
    assert done.returncode == 1
    assert "Latency on kernels budget 0.01 ms" in done.stderr


def test_a_search_that_starts_from_a_csv_is_no_worse_than_its_archs(tables: Path, tmp_path: Path) -> None:
    path = tmp_path / "front.csv"
    plain = ("--table", str(tables / "plain.json"))
    assert run("front", *SUPERNET, *plain, "--evaluations", "20000", "-o", str(path)).returncode == 0
    rows = [row for row in csv.DictReader(path.read_text().splitlines()) if float(row["latency_ms"]) <= 2]
    done = run("search", *SUPERNET, *plain, "--latency-ms", "2", "--start", str(path), "--evaluations", "100", "--json")
    assert (
        json.loads(done.stdout)["accuracy"]["predicted"] >= float(rows[-1]["predicted"]) - 1e-5
    )  # a batch of another size
    path.write_text("ks,e,d,r\n3,3,1,999\n")
    done = run("search", *SUPERNET, *plain, "--latency-ms", "2", "--start", str(path))
    assert done.returncode == 1
    assert "line 2" in done.stderr


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ([], "Give a budget"),
        (["--latency-ms", "1", "--latency-ms", "2"], "one latency budget per --table"),
        (["--latency-ms", "1", "--latency-percent", "5"], "not both"),
        (["--latency-percent", "101"], "between 0 and 100"),
        (["--latency-ms", "1", "--objective", "beauty"], "--objective is one of"),
        (["--latency-ms", "1", "--precision", "int4"], "--precision is one of"),
    ],
)
def test_contradictory_options_are_wrong_usage(tables: Path, options: list[str], hint: str) -> None:
    done = run("search", *SUPERNET, "--table", str(tables / "plain.json"), *options)
    assert done.returncode == 2
    assert hint in " ".join(done.stderr.replace("│", " ").split())


def test_a_front_as_csv_and_as_picture(tables: Path, tmp_path: Path) -> None:
    command = ("front", *SUPERNET, "--table", str(tables / "plain.json"), "--evaluations", "3000")
    done = run(*command)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    for column in ("latency_ms", "predicted"):
        values = [float(row[column]) for row in rows]
        assert values == sorted(values)
        assert len(values) > 20
    assert all(float(row["predicted_low"]) < float(row["predicted"]) < float(row["predicted_high"]) for row in rows)
    path = tmp_path / "front.csv"
    run(*command, "-o", str(path))
    assert path.read_text() == done.stdout
    archs = [arch for arch, _ in read_archs(path, SPACE)]
    estimator = LatencyEstimator(table_of("plain", kernels=False), SPACE)
    assert [estimate.estimated_ms for estimate in estimator.estimate(archs)] == pytest.approx(
        [float(row["latency_ms"]) for row in rows]
    )
    picture = tmp_path / "front.png"
    assert run(*command, "-o", str(picture)).returncode == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(*command, "-o", str(tmp_path / "front.doc")).returncode == 2


def write_fleet(folder: Path, tables: Path, *, more: str = "", budget: str = "[1, 2]") -> Path:
    path = folder / "fleet.toml"
    path.write_text(
        f'supernet = "cifar_mbv3"\nevaluations = 1000\n{more}\n'
        f'[[devices]]\ntable = "{tables / "plain.json"}"\nlatency_ms = {budget}\n'
        f'[[devices]]\ntable = "{tables / "kernels.json"}"\nlatency_percent = 30\n'
    )
    return path


def test_a_fleet_has_one_answer_per_device_and_budget(tables: Path, tmp_path: Path) -> None:
    path = write_fleet(tmp_path, tables)
    done = run("fleet", str(path), "--json")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert [(answer["device"], answer["constraints"]) for answer in answers[:2]] == [
        ("plain", {"latency_ms": 1.0}),
        ("plain", {"latency_ms": 2.0}),
    ]
    assert answers[2]["constraints"]["latency_percent"] == 30
    for answer in answers:
        assert answer["latency_ms"]["estimated"] <= answer["constraints"]["latency_ms"]
    shown = run("fleet", str(path)).stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["device", "plain", "plain", "kernels"]
    assert answers[0]["arch_id"] in shown


def test_the_example_of_the_help_is_a_fleet(tables: Path, tmp_path: Path) -> None:
    shown = run("fleet", "--help").stdout
    lines = [line.strip() for line in shown.splitlines()]
    example = "\n".join(line for line in lines if " = " in line and not line.startswith("│"))
    path = tmp_path / "fleet.toml"
    path.write_text(example.replace("tables/rpi5.json", str(tables / "plain.json")))
    done = run("fleet", str(path), "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2


def test_a_fleet_says_what_is_impossible_and_answers_the_rest(tables: Path, tmp_path: Path) -> None:
    done = run("fleet", str(write_fleet(tmp_path, tables, budget="[0.001, 2]")), "--json")
    assert done.returncode == 1
    answers = json.loads(done.stdout)
    assert ["error" in answer for answer in answers] == [True, False, False]
    assert "1 of 3 questions have no answer" in done.stderr


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        ("budgets = 5", "unknown keys ['budgets']"),
        ("precision = 'int4'", "'precision' is one of"),
        ("= 5", "is no TOML"),
        ("constraints = {beauty = 5}", "'beauty' is no constraint; there are"),
        ("constraints = {macs = 'few'}", "positive number"),
        ("constraints = 5", "'constraints' is a table"),
        ("seed = 'x'", "'seed' is a whole number"),
        ("confidence = 'high'", "'confidence' is a number"),
        ("constraints = {macs = -5}", "positive number"),
        ("confidence = 2", "quantile"),
    ],
)
def test_a_wrong_fleet_file_is_one_line(tables: Path, tmp_path: Path, more: str, hint: str) -> None:
    done = run("fleet", str(write_fleet(tmp_path, tables, more=more)))
    assert done.returncode == 1
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("budget", "hint"),
    [
        ("latency_percent = [50, 101]", "between 0 and 100"),
        ("latency_percent = -1", "between 0 and 100"),
        ("latency_ms = []", "holds no number"),
    ],
)
def test_budgets_no_device_has_are_refused(tables: Path, tmp_path: Path, budget: str, hint: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(f'supernet = "cifar_mbv3"\n[[devices]]\ntable = "{tables / "plain.json"}"\n{budget}\n')
    done = run("fleet", str(path))
    assert done.returncode == 1
    assert hint in done.stderr


def test_a_fleet_without_devices_or_budgets_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    for text, hint in (
        ('supernet = "cifar_mbv3"', "names no device"),
        ('supernet = "cifar_mbv3"\n[[devices]]\ntable = "x.json"', "device 1"),
        ('supernet = "cifar_mbv3"\n[[devices]]\ntable = "x.json"\nlatency_ms = 5', "x.json"),
    ):
        path.write_text(text)
        done = run("fleet", str(path))
        assert done.returncode == 1
        assert hint in done.stderr
