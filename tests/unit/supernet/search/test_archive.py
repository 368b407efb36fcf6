from __future__ import annotations

import numpy as np

from supernet.search.archive import Archive


def archive_of(places: list[float], accuracies: list[float]) -> Archive:
    """Archs in this order, each a row of its own number."""
    archive = Archive(1)
    archive.add(np.arange(len(places), dtype=np.int16)[:, None], np.array(places), np.array(accuracies))
    return archive


def numbers_of(archive: Archive) -> list[int]:
    return archive.rows[:, 0].tolist()


def test_the_best_of_equal_places_are_kept_and_the_most_accurate_come_first(rng: np.random.Generator) -> None:
    accuracies = rng.permutation(20) / 20
    archive = archive_of([5.0] * 20, accuracies.tolist())
    assert archive.accuracies.tolist() == sorted(accuracies, reverse=True)[:8]
    assert (accuracies[numbers_of(archive)] == archive.accuracies).all()


def test_archs_much_dearer_than_a_better_one_are_forgotten() -> None:
    assert numbers_of(archive_of([1.0, 1.05, 1.2, 1.3], [0.5, 0.4, 0.4, 0.6])) == [0, 1, 3]


def test_an_arch_that_nothing_beats_stays_beside_better_ones_of_its_step() -> None:
    archive = archive_of([1.0, *np.linspace(1.0001, 1.0002, 9)], [0.1, *np.linspace(0.2, 0.3, 9)])
    assert 0 in numbers_of(archive)


def test_what_is_added_later_counts_like_what_came_first(rng: np.random.Generator) -> None:
    places, accuracies = rng.uniform(1, 2, 300), rng.random(300)
    whole, rows = archive_of(places.tolist(), accuracies.tolist()), np.arange(300, dtype=np.int16)[:, None]
    parts = Archive(1)
    for part in np.split(rng.permutation(300), 10):
        parts.add(rows[part], places[part], accuracies[part])
    assert numbers_of(parts) == numbers_of(whole)
    assert (np.diff(np.floor(np.log(whole.places) / 0.0025)) >= 0).all()


def test_pairs_lie_between_the_places_asked_for(rng: np.random.Generator) -> None:
    archive = archive_of(np.linspace(1, 2, 200).tolist(), np.linspace(0, 1, 200).tolist())
    parents, mates = archive.draw_pairs(rng, 500, low=1.3, high=1.4)
    places = np.linspace(1, 2, 200)
    for rows in (parents, mates):
        assert 1.29 < places[rows[:, 0]].min() < 1.31
        assert 1.39 < places[rows[:, 0]].max() < 1.41


def test_of_few_parents_the_most_accurate_are_drawn(rng: np.random.Generator) -> None:
    accuracies = rng.permutation(200) / 200
    archive = Archive(1)
    archive.add(np.arange(200, dtype=np.int16)[:, None], np.linspace(1, 1.09, 200), accuracies)
    parents, mates = archive.draw_pairs(rng, 500, low=1, high=1.09, most=5)
    for rows in (parents, mates):
        assert accuracies[np.unique(rows[:, 0])].tolist() == accuracies[np.sort(np.argsort(-accuracies)[:5])].tolist()


def test_mates_are_never_far(rng: np.random.Generator) -> None:
    archive = archive_of(np.linspace(1, 3, 400).tolist(), np.linspace(0, 1, 400).tolist())
    parents, mates = (np.linspace(1, 3, 400)[rows[:, 0]] for rows in archive.draw_pairs(rng, 500, low=0, high=np.inf))
    assert np.abs(np.log(parents / mates)).max() < 0.105
    assert np.ptp(parents) > 1.9


def test_where_nothing_lies_between_all_archs_are_drawn_from(rng: np.random.Generator) -> None:
    parents, _ = archive_of([1.0, 1.01], [0.1, 0.2]).draw_pairs(rng, 50, low=5, high=6)
    assert set(parents[:, 0]) == {0, 1}
