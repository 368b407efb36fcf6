"""`tailor predictor`: fit and judge accuracy predictors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.output import JsonFlag, print_json, print_table
from service.commands.spaces import SpaceName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from supernet.spaces.space import Rows, SearchSpace

app = typer.Typer(no_args_is_help=True)
Measured = Annotated[Path, typer.Option(help="CSV of archs with the column top1_percent.")]


@app.command()
def fit(
    space: SpaceName,
    measured: Measured,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")],
    *,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds of cross-validation.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Fit an accuracy predictor on evaluated archs."""
    import numpy as np

    from supernet.predictors.accuracy import AccuracyPredictor
    from supernet.spaces.presets import load_space

    chosen = load_space(space)
    rows, top1 = _read_measured(measured, chosen)
    predictor = AccuracyPredictor.fit(chosen, rows, top1, n_images=None, rng=np.random.default_rng(seed))
    predictor.save(out)
    _print_quality(asdict(predictor.quality), as_json=as_json)


@app.command()
def evaluate(
    predictor: Annotated[Path, typer.Argument(help="File written by `tailor predictor fit`.")],
    measured: Measured,
    *,
    as_json: JsonFlag = False,
) -> None:
    """Compare predictions with evaluated archs."""
    from supernet.predictors.accuracy import load_predictor, space_name_of
    from supernet.predictors.evaluate import evaluate_predictor
    from supernet.spaces.presets import load_space

    chosen = load_space(space_name_of(predictor))
    rows, top1 = _read_measured(measured, chosen)
    report = evaluate_predictor(load_predictor(predictor, chosen), rows, top1)
    _print_quality(asdict(report), as_json=as_json)


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
        print_table(["figure", "value"], list(quality.items()))
