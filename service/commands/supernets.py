"""`tailor supernet`: the supernets that come with Tailor."""

from __future__ import annotations

import typer

from service.commands.output import JsonFlag, print_json, print_table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Supernets."""


@app.command("list")
def list_all(*, as_json: JsonFlag = False) -> None:
    """List the shipped supernets."""
    from supernet.bundle import open_bundle, shipped_bundles

    listed = [
        {
            "supernet": name,
            "space": bundle.space.name,
            "classes": len(bundle.manifest.classes),
            "resolutions": list(bundle.space.resolutions),
            "parts": {part: entry["bytes"] for part, entry in bundle.manifest.parts.items()},
        }
        for name, path in shipped_bundles().items()
        for bundle in [open_bundle(path)]
    ]
    if as_json:
        print_json(listed)
    else:
        print_table(
            ["supernet", "space", "classes", "resolutions", "parts (bytes)"], [tuple(e.values()) for e in listed]
        )
