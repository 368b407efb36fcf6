"""`tailor predictor`: fit, judge and import accuracy predictors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.output import JsonFlag, note, print_json, print_table
from service.commands.searching import parse_resolutions
from service.commands.spaces import OwnSpace, SpaceName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from supernet.spaces.space import Rows, SearchSpace

app = typer.Typer(no_args_is_help=True)
_CORRECT_IT = "`tailor predictor fit --calibrate` corrects it with 20 measured archs or more."
Measured = Annotated[Path, typer.Option(help="CSV of archs with the column top1_percent.")]


@app.command()
def fit(
    space: SpaceName,
    measured: Measured,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    *,
    calibrate: Annotated[
        Path | None, typer.Option(help="File written by `tailor predictor import-ofa`, to be corrected.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds of cross-validation.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Fit an accuracy predictor on at least 20 evaluated archs, or correct an imported one by them."""
    import numpy as np

    from supernet.predictors.accuracy import AccuracyPredictor
    from supernet.predictors.corrected import CorrectedPredictor
    from supernet.predictors.loading import load_predictor
    from supernet.spaces.presets import find_space

    chosen, rng = find_space(space), np.random.default_rng(seed)
    base = load_predictor(calibrate, chosen) if calibrate else None
    rows, top1 = _read_measured(measured, chosen)
    predictor: AccuracyPredictor | CorrectedPredictor
    if base is None:
        predictor = AccuracyPredictor.fit(chosen, rows, top1, n_images=None, rng=rng)
    else:
        predictor = CorrectedPredictor.fit(base, rows, top1, n_images=None, rng=rng)
    predictor.save(out)
    _print_quality(predictor.quality.to_dict(), as_json=as_json)


@app.command()
def evaluate(
    predictor: Annotated[Path, typer.Argument(help="File written by `tailor predictor fit` or `import-ofa`.")],
    measured: Measured,
    space: OwnSpace = None,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Compare predictions with evaluated archs."""
    from supernet.predictors.evaluate import evaluate_predictor
    from supernet.predictors.loading import load_predictor, space_name_of
    from supernet.spaces.presets import find_space, load_space

    chosen = find_space(space) if space else load_space(space_name_of(predictor))
    rows, top1 = _read_measured(measured, chosen)
    report = evaluate_predictor(load_predictor(predictor, chosen), rows, top1)
    _print_quality(report.to_dict(), as_json=as_json)
    if report.coverage_90 is None:
        side = "above" if report.bias_pp > 0 else "below"
        note(f"No intervals: it predicts {abs(report.bias_pp):.1f} points {side} these archs on average. {_CORRECT_IT}")


@app.command("import-ofa")
def import_ofa(
    checkpoint: Annotated[Path, typer.Argument(help="The reference project's file (.pth).")],
    space: SpaceName,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    *,
    resolutions: Annotated[
        str | None, typer.Option(help="Image sizes it was trained with, in their order, e.g. 128,160,192,224.")
    ] = None,
) -> None:
    """Import an accuracy predictor of the once-for-all reference project.

    It predicts accuracies on images held out of training, 3 to 5 points above those on a test set, without intervals;
    `tailor predictor fit --calibrate` corrects it.
    """
    from supernet.ofa.predictors import import_predictor
    from supernet.spaces.presets import find_space

    predictor = import_predictor(checkpoint, find_space(space), resolutions=parse_resolutions(resolutions))
    predictor.save(out)
    note(f"Wrote {out}: it knows the resolutions {', '.join(map(str, predictor.resolutions))}.")
    note(f"It overstates accuracies by 3 to 5 points and has no intervals: trust the order alone. {_CORRECT_IT}")


def _read_measured(path: Path, space: SearchSpace) -> tuple[Rows, NDArray[np.float64]]:
    import numpy as np

    from supernet.errors import InvalidConfigError
    from supernet.spaces.arch_csv import read_archs

    read = read_archs(path, space)
    try:
        top1 = np.array([float(row["top1_percent"]) / 100 for _, row in read])
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidConfigError(f"'{path}' needs a number in the column 'top1_percent': {error!r}.") from error
    return space.to_rows([arch for arch, _ in read]), top1


def _print_quality(quality: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(quality)
    else:
        print_table(
            ["figure", "value"], [(name, "unknown" if value is None else value) for name, value in quality.items()]
        )
