"""`tailor spaces` and `tailor describe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from service.commands.output import JsonFlag, print_json, print_table

SpaceName = Annotated[
    str, typer.Option("--space", help="Search space: a name of `tailor spaces`, or a TOML or JSON file.")
]

OwnSpace = Annotated[
    str | None, typer.Option("--space", help="TOML or JSON file of the search space, if it is your own.")
]


def list_all(*, as_json: JsonFlag = False) -> None:
    """List the search spaces."""
    from supernet.spaces.costs import macs, params
    from supernet.spaces.presets import list_spaces, load_space

    described: list[dict[str, Any]] = []
    for name in list_spaces():
        space = load_space(name)
        smallest, largest = space.smallest(), space.largest()
        described.append(
            {
                "space": name,
                "archs": space.size(),
                "resolutions": list(space.resolutions),
                "macs": [macs(space, smallest), macs(space, largest)],
                "params": [params(space, smallest), params(space, largest)],
            }
        )
    if as_json:
        print_json(described)
        return
    rows = [
        (
            entry["space"],
            f"{entry['archs']:.2e}",
            f"{entry['resolutions'][0]}–{entry['resolutions'][-1]}",
            "–".join(f"{value / 1e6:.1f}" for value in entry["macs"]),
            "–".join(f"{value / 1e6:.2f}" for value in entry["params"]),
        )
        for entry in described
    ]
    print_table(["space", "archs", "resolutions", "MACs (M)", "params (M)"], rows)


def describe(
    space: SpaceName,
    archs: Annotated[Path, typer.Option(help="CSV of archs: columns ks,e,d,r and, where elastic, w.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    """MACs and parameters of every arch in a CSV file."""
    from supernet.spaces.arch_csv import read_archs
    from supernet.spaces.costs import macs_cost, params_cost
    from supernet.spaces.presets import find_space

    chosen = find_space(space)
    read = [arch for arch, _ in read_archs(archs, chosen)]
    described = [
        {"arch_id": arch.arch_id, "macs": int(macs), "params": int(params)}
        for arch, macs, params in zip(read, macs_cost(chosen).of(read), params_cost(chosen).of(read), strict=True)
    ]
    if as_json:
        print_json(described)
    else:
        print_table(["arch_id", "MACs", "params"], [tuple(entry.values()) for entry in described])
