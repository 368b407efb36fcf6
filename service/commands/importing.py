"""`tailor import-ofa`: files of the once-for-all reference project to a bundle or an arch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.commands.output import JsonFlag, note, print_json, validate_writable


def import_ofa(
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Saved state dict of a supernet; a folder of a specialised net (net.config, init); or a net.config."
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option("--space", help="Search space of the supernet; see `tailor spaces`.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the bundle, or JSON file of the arch.")] = Path(
        "bundle"
    ),
    *,
    predictor: Annotated[Path | None, typer.Option(help="Accuracy predictor to put into the bundle.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder of images for BN recalibration; some are copied into the bundle.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Number of classes, or a text file with one name per line.")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Image size of a specialised net, if no run.config tells it.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the supernet; default the space's.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Import a supernet, a specialised net or an arch of the once-for-all project.

    Without a checkpoint, `--space` and `--predictor` make a bundle that can be searched but not deployed.
    """
    validate_writable(out.parent)  # before seconds of imports
    from supernet.errors import InvalidConfigError
    from supernet.ofa.importing import import_bundle, import_static_bundle
    from supernet.spaces.presets import find_space

    if checkpoint is not None and checkpoint.suffix == ".config":
        _import_arch(checkpoint, space, out, resolution=resolution, as_json=as_json)
        return
    if checkpoint is not None and checkpoint.is_dir():
        if space or predictor or classes:
            raise InvalidConfigError(
                f"'{checkpoint}' is the folder of a specialised net, whose space is itself: leave out --space, "
                "--predictor and --classes."
            )
        bundle = import_static_bundle(checkpoint, out, resolution=resolution, calibration=calibration, name=name)
    elif space is None:
        raise InvalidConfigError("Name the search space of the supernet with --space; `tailor spaces` lists them.")
    else:
        bundle = import_bundle(
            out,
            find_space(space),
            checkpoint=checkpoint,
            predictor=predictor,
            calibration=calibration,
            classes=_class_names(classes),
            name=name,
        )
    if as_json:
        print_json(bundle.manifest.to_dict())
        return
    parts = ", ".join(bundle.manifest.parts)
    note(f"Bundle '{bundle.manifest.name}' with {parts} written to {out}.")
    if "weights" in bundle.manifest.parts and "calibration" not in bundle.manifest.parts:
        note("It holds no images for BN recalibration: give each export some with --calibration FOLDER.")


def _import_arch(config: Path, space: str | None, out: Path, *, resolution: int | None, as_json: bool) -> None:
    from supernet.errors import InvalidConfigError
    from supernet.ofa.net_config import read_net_config
    from supernet.spaces.presets import find_space

    if space is None:
        raise InvalidConfigError(f"Name the search space that '{config}' is an arch of with --space.")
    arch = read_net_config(config, resolution=resolution).arch(find_space(space))
    out.write_text(arch.to_json() + "\n", encoding="utf-8")
    if as_json:
        print_json(arch.to_dict())
    else:
        note(f"Arch {arch.arch_id} of '{space}' written to {out}.")


def _class_names(classes: str | None) -> list[str] | None:
    """Names from a file, or numbers."""
    from supernet.errors import InvalidConfigError

    if classes is None:
        return None
    if classes.isdecimal() and classes.isascii():
        if not 1 <= int(classes) <= 131_072:
            raise InvalidConfigError(f"--classes must be from 1 to 131072, got {classes}.")
        return [str(number) for number in range(int(classes))]
    try:
        names = [line.strip() for line in Path(classes).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise InvalidConfigError(
            f"--classes takes a number or a text file with one name per line; '{classes}': {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidConfigError(f"'{classes}' is no UTF-8 text: {error}.") from error
    if not names:
        raise InvalidConfigError(f"'{classes}' holds no class names.")
    return names
