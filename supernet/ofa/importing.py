"""Files of the reference to a bundle of ours: weights, predictor and calibration images, each where there is one."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.bundle import PARTS, hash_file, open_bundle, write_manifest
from supernet.data.batches import Normalisation
from supernet.data.images import load_images
from supernet.errors import InvalidCheckpointError, InvalidConfigError
from supernet.evaluation.calibration import Calibration, save_calibration
from supernet.network.checkpoint import save_tensors
from supernet.ofa.net_config import read_net_config
from supernet.ofa.state_dicts import read_state_dict
from supernet.ofa.weights import classes_of, import_weights
from supernet.predictors.loading import load_predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from supernet.bundle import Bundle
    from supernet.spaces.space import SearchSpace

# What all of the reference's networks were trained with, on every data set.
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# At 224 pixels they take 39 MB of the bundle.
CALIBRATION_IMAGES = 256


def import_bundle(
    out: Path,
    space: SearchSpace,
    *,
    checkpoint: Path | None = None,
    predictor: Path | None = None,
    calibration: Path | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> Bundle:
    """Make a bundle of a supernet that the reference trained.

    Args:
        out: Folder of the bundle; must not exist, or be empty.
        space: Of the supernet. Its number of classes gives way to that of `classes`.
        checkpoint: State dict of the supernet; without, the bundle can be searched but not deployed.
        predictor: File of `tailor predictor`; without, the bundle can be deployed but not searched.
        calibration: Folder of images for BN recalibration, copied into the bundle; without, each export needs images of
            its own.
        classes: Names in the order of the outputs; by default their numbers.
        name: Of the supernet; by default the space's.

    Raises:
        InvalidCheckpointError: The checkpoint cannot be read or is of another network.
        InvalidBundleError: The predictor cannot be read.
        FingerprintMismatchError: The predictor is of another space.
        InvalidDatasetError: The folder holds no images, or a broken one.
        InvalidConfigError: Neither weights nor predictor, or `out` holds something already.
    """
    if checkpoint is None and predictor is None:
        raise InvalidConfigError("A bundle needs weights, a predictor or both: name a checkpoint or a predictor.")
    if classes is not None:
        space = space.with_classes(len(classes))
    training: dict[str, Any] = {"method": "imported"}
    tensors = None
    if checkpoint is not None:
        state = read_state_dict(checkpoint)
        if (found := classes_of(state)) not in (None, space.classes):
            raise InvalidCheckpointError(
                f"'{checkpoint}' has {found} classes, '{space.name}' has {space.classes}. Name them with --classes."
            )
        weights = import_weights(state, space)
        tensors = weights.tensors
        training |= {
            "checkpoint": checkpoint.name,
            "checkpoint_sha256": hash_file(checkpoint),
            "keys": weights.keys,
            "kernel_matrices": weights.kernel_matrices,
        }
    if predictor is not None:
        load_predictor(predictor, space)
    images = None
    if calibration is not None:
        # In random order: folders are mostly sorted by class, and batches of one class have too small a variance.
        rng = np.random.default_rng(space.classes)
        images = load_images(calibration, size=max(space.resolutions), most=CALIBRATION_IMAGES, rng=rng)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidConfigError(f"'{out}' holds something already: name a new folder.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as draft:
        folder = Path(draft)
        if tensors is not None:
            save_tensors(folder / PARTS["weights"], tensors, space)
        if predictor is not None:
            shutil.copyfile(predictor, folder / PARTS["predictor"])
        if images is not None:
            save_calibration(folder / PARTS["calibration"], Calibration(space, IMAGENET, (), images.pixels))
        write_manifest(
            folder,
            name=name or space.name,
            space=space,
            classes=tuple(classes or map(str, range(space.classes))),
            normalisation=(IMAGENET.mean, IMAGENET.std),
            training=training,
            versions={"tailor": version("tailor-nas")},
        )
        folder.chmod(0o755)  # the temporary folder is its owner's only
        if out.exists():
            out.rmdir()
        folder.rename(out)
        folder.mkdir()  # for the context manager to remove
    return open_bundle(out)


def import_static_bundle(
    folder: Path, out: Path, *, resolution: int | None = None, calibration: Path | None = None, name: str | None = None
) -> Bundle:
    """Make a bundle of one specialised net of the reference: its search space has one arch.

    Args:
        folder: With `net.config`, the weights `init` and, unless a resolution is given, `run.config`.
        out: Folder of the bundle; must not exist, or be empty.
        resolution: Of the images, pixels.
        calibration: Folder of images for BN recalibration, copied into the bundle.
        name: Of the bundle; by default the folder's.

    Raises:
        InvalidCheckpointError: A file cannot be read, the net has layers we do not have, or the weights do not fit.
        InvalidDatasetError: The folder holds no images, or a broken one.
        InvalidConfigError: `out` holds something already.
    """
    net = read_net_config(folder / "net.config", resolution=resolution)
    chosen = name or folder.resolve().name
    # Nets of one name at several resolutions are several spaces, and latency tables are kept by the space's name.
    space = net.space(f"{chosen}_{net.blocks[0].in_size}")
    return import_bundle(out, space, checkpoint=folder / "init", calibration=calibration, name=chosen)
