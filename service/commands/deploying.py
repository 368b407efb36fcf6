"""`tailor export` and `tailor verify`: an arch to a deployment folder, and the folder checked again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.commands.output import JsonFlag, note, print_json, validate_writable


def export(
    supernet: Annotated[str, typer.Option(help="A bundle's folder, or the name of a shipped one.")],
    arch: Annotated[str, typer.Option(help="JSON file of an arch or of a search answer, or smallest or largest.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for model.onnx and manifest.json.")],
    *,
    precision: Annotated[str, typer.Option(help="Only fp32 so far.")] = "fp32",
    opset: Annotated[int, typer.Option(help="ONNX opset.")] = 18,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Folder of your own images for BN recalibration; by default the bundle's synthesised images."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Write one subnet as verified ONNX."""
    validate_writable(out)  # before seconds of imports
    from supernet.bundle import open_bundle
    from supernet.deployment import build_deployment
    from supernet.spaces.arch import find_arch

    manifest = build_deployment(
        supernet,
        find_arch(open_bundle(supernet).space, arch),
        out,
        opset=opset,
        precision=precision,
        calibration=calibration,
        report=lambda share, stage: note(f"{share:4.0%} {stage}"),
    )
    if as_json:
        print_json(manifest)
    else:
        parity = manifest["parity"]
        note(f"{out / 'model.onnx'}: {manifest['model']['size_bytes']:,} bytes, sha256 {manifest['model']['sha256']}")
        note(f"ONNX Runtime against torch: at most {parity['max_abs_diff']:.1e} apart on {parity['images']} images.")


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a deployment.")],
    *,
    as_json: JsonFlag = False,
) -> None:
    """Check a deployment folder: hashes, graph, shapes and logits. Needs no torch."""
    from dataclasses import asdict

    from supernet.export.verify import verify_deployment

    report = verify_deployment(folder)
    if as_json:
        print_json({**asdict(report), "folder": str(folder)})
    else:
        note(
            f"{folder} verifies: arch {report.arch_id}, logits of {report.images} reference images "
            f"at most {report.max_abs_diff:.1e} apart."
        )
