"""Populations: resumed, cut short, and compared with an uninterrupted run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supernet.data.batches import Normalisation, evaluation_batches
from supernet.data.images import ImageSet
from supernet.errors import InvalidArchError, InvalidConfigError
from supernet.evaluation import population as population_module
from supernet.evaluation.accuracy import evaluate_accuracy
from supernet.evaluation.population import (
    EvaluatedArch,
    evaluate_arch,
    evaluate_population,
    load_population,
    recalibrate_with,
)
from supernet.evaluation.statistics import recalibrate_bn
from supernet.network.elastic_net import Supernet
from supernet.network.extract import extract_subnet
from supernet.spaces.arch import Arch
from supernet.spaces.space import SearchSpace

Evaluate = Callable[..., list[EvaluatedArch]]


@pytest.fixture
def archs(space: SearchSpace) -> list[Arch]:
    """Distinct, of different depths and resolutions."""
    smallest, largest = space.smallest(), space.largest()
    mixed = Arch(8, (2,), (3, 5), (2, 1))
    return [largest, smallest, mixed]


@pytest.fixture
def evaluate(supernet: Supernet, images: ImageSet, normalisation: Normalisation) -> Evaluate:
    def evaluate(archs: list[Arch], out: Path, **settings: object) -> list[EvaluatedArch]:
        return evaluate_population(
            supernet,
            archs,
            out,
            recalibrate=recalibrate_with(images, normalisation),
            images=images,
            normalisation=normalisation,
            **settings,  # type: ignore[arg-type]
        )

    return evaluate


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Arch]:
    """The archs that are really evaluated."""
    calls: list[Arch] = []
    original = population_module.evaluate_arch

    def spy(supernet: Supernet, arch: Arch, **settings: Any) -> object:
        calls.append(arch)
        return original(supernet, arch, **settings)

    monkeypatch.setattr(population_module, "evaluate_arch", spy)
    return calls


def test_an_arch_is_recalibrated_before_it_is_evaluated(
    supernet: Supernet, images: ImageSet, normalisation: Normalisation, archs: list[Arch]
) -> None:
    arch = archs[2]
    recalibrate = recalibrate_with(images, normalisation)
    result = evaluate_arch(supernet, arch, recalibrate=recalibrate, images=images, normalisation=normalisation)
    subnet = extract_subnet(supernet, arch)
    batches = list(evaluation_batches(images, normalisation, resolution=8, batch_size=250))
    recalibrate_bn(subnet, [batch for batch, _ in batches])
    assert result == evaluate_accuracy(subnet, batches)


def test_results_come_in_order_and_are_read_back(
    evaluate: Evaluate, archs: list[Arch], space: SearchSpace, tmp_path: Path
) -> None:
    results = evaluate(archs, tmp_path / "p.csv")
    assert [entry.arch for entry in results] == archs
    assert all(entry.result.total == 60 for entry in results)
    assert load_population(tmp_path / "p.csv", space) == results


def test_a_second_run_evaluates_only_what_is_missing(
    evaluate: Evaluate, archs: list[Arch], calls: list[Arch], tmp_path: Path
) -> None:
    first = evaluate(archs[:2], tmp_path / "p.csv")
    calls.clear()
    reports: list[tuple[int, int]] = []
    second = evaluate(archs, tmp_path / "p.csv", report=lambda done, total: reports.append((done, total)))
    assert calls == archs[2:]
    assert second[:2] == first
    assert reports == [(1, 3), (2, 3), (3, 3)]


def test_each_result_is_written_before_the_next_arch_starts(
    evaluate: Evaluate, archs: list[Arch], space: SearchSpace, tmp_path: Path
) -> None:
    lines: list[int] = []
    evaluate(archs, tmp_path / "p.csv", report=lambda *_: lines.append(len(load_population(tmp_path / "p.csv", space))))
    assert lines == [1, 2, 3]


@pytest.mark.parametrize("cut", [1, 2, 9, 200])
def test_a_run_cut_short_ends_as_an_uninterrupted_one(
    evaluate: Evaluate, archs: list[Arch], tmp_path: Path, cut: int
) -> None:
    """The cut falls on the line's end, into its last field, into its arch, and into the header."""
    whole, broken = tmp_path / "whole.csv", tmp_path / "broken.csv"
    expected = evaluate(archs, whole)
    content = whole.read_bytes()
    broken.write_bytes(content[: max(5, len(content) - cut)])
    assert evaluate(archs, broken) == expected
    assert broken.read_bytes() == content


def test_a_file_with_nothing_but_its_header_is_continued(evaluate: Evaluate, archs: list[Arch], tmp_path: Path) -> None:
    evaluate([], tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == "ks,e,d,r,correct,images,top1_percent\n"
    assert len(evaluate(archs, tmp_path / "p.csv")) == 3
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 4


def test_repeats_are_evaluated_once(
    evaluate: Evaluate, archs: list[Arch], calls: list[Arch], space: SearchSpace, tmp_path: Path
) -> None:
    """Two archs that differ in skipped blocks alone are one."""
    same = Arch(8, (1,), (3, 5), (1, 2))
    results = evaluate([space.smallest(), archs[0], same, archs[0]], tmp_path / "p.csv")
    assert [entry.arch for entry in results] == [space.smallest(), archs[0], space.smallest(), archs[0]]
    assert len(calls) == 2


def test_a_file_from_another_number_of_images_is_not_continued(
    evaluate: Evaluate, archs: list[Arch], tmp_path: Path
) -> None:
    evaluate(archs[:1], tmp_path / "p.csv")
    text = (tmp_path / "p.csv").read_text()
    (tmp_path / "p.csv").write_text(text.replace(",60,", ",61,"))
    with pytest.raises(InvalidConfigError, match=r"61 images.*60"):
        evaluate(archs, tmp_path / "p.csv")


def test_a_file_of_another_space_is_not_continued(evaluate: Evaluate, archs: list[Arch], tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("ks,e,d,r,correct,images,top1_percent\n3-3-3,1-1-1,2,8,1,60,1.667\n")
    with pytest.raises(InvalidArchError, match="line 2"):
        evaluate(archs, tmp_path / "p.csv")


@pytest.mark.parametrize(
    "text",
    [
        "ks,e,d,r\n3-3,1-1,2,8\n",
        "ks,e,d,r,correct,images\n3-3,1-1,2,8,many,60\n",
        "ks,e,d,r,correct,images\n3-3,1-1,2,8,61,60\n",
        "ks,e,d,r,correct,images\n3-3,1-1,2,8,0,0\n",
        "ks,e,d,r,correct,images\n3-3,1-1,2,8\n",
    ],
)
def test_rows_without_usable_counts_are_refused(space: SearchSpace, tmp_path: Path, text: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InvalidConfigError, match="whole numbers in the columns 'correct' and 'images'"):
        load_population(tmp_path / "p.csv", space)
