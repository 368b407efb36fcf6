"""benchmarks/search_runs.py: turns that are fair, and a file that survives an interruption."""

from __future__ import annotations

from pathlib import Path

from benchmarks.search_runs import Answer, Run, Task, append_run, in_turns, load_runs


def group(searcher: str, count: int) -> list[Task]:
    return [Task(searcher, 20.0, seed, 1000) for seed in range(count)]


def finished(seed: int) -> Run:
    answer = Answer(20.0, 19.5, 21.0, 0.8, {"depths": [2, 3]}, own_latency_ms=19.5, own_accuracy=0.8)
    return Run(Task("one", 20.0, seed, 1000), 1.5, 1.25, 990, (answer,), ((19.5, 0.8),))


def test_turns_spread_each_group_over_the_whole_time() -> None:
    turns = in_turns([group("many", 6), group("few", 2)])
    assert [task.searcher for task in turns] == ["many", "many", "few", "many", "many", "many", "few", "many"]
    assert [task.seed for task in turns if task.searcher == "many"] == list(range(6))


def test_at_the_same_place_the_first_group_comes_first() -> None:
    assert [task.searcher for task in in_turns([group("b", 2), group("a", 2)])] == ["b", "a", "b", "a"]


def test_runs_come_back_as_they_were(tmp_path: Path) -> None:
    assert load_runs(tmp_path / "runs.jsonl") == []
    for seed in range(2):
        append_run(tmp_path / "runs.jsonl", finished(seed))
    assert load_runs(tmp_path / "runs.jsonl") == [finished(0), finished(1)]


def test_a_line_that_was_cut_off_is_dropped_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    for seed in range(2):
        append_run(path, finished(seed))
    path.write_bytes(path.read_bytes()[:-40])
    assert load_runs(path) == [finished(0)]
    append_run(path, finished(1))
    assert load_runs(path) == [finished(0), finished(1)]
