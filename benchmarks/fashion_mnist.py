"""Fashion-MNIST, or scikit-learn's digits, as parquet files that `tailor train --data FOLDER` reads.

python benchmarks/fashion_mnist.py --out FOLDER [--source FOLDER] [--images N]
python benchmarks/fashion_mnist.py --digits --out FOLDER

Debian's package dataset-fashion-mnist brings the images; digits need scikit-learn.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    # Per split, grey images `(n, height, width)` uint8 and labels `(n,)`.
    Splits = dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DIGITS = tuple("0123456789")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the parquet files")
    parser.add_argument("--source", type=Path, default=DEBIAN_FOLDER, help="folder of *-ubyte.gz; default %(default)s")
    parser.add_argument("--images", type=int, help="only the first N of each split")
    parser.add_argument(
        "--digits", action="store_true", help="scikit-learn's digits, 8×8 pixels, in place of Fashion-MNIST"
    )
    arguments = parser.parse_args()
    if arguments.images is not None and arguments.images < 1:
        parser.error(f"--images must be 1 or more, not {arguments.images}")
    splits, names = (read_digits(), DIGITS) if arguments.digits else (read_fashion(arguments.source), FASHION)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        path = arguments.out / f"{split}-00000-of-00001.parquet"
        write_parquet(path, images[: arguments.images], labels[: arguments.images], names=names)
        print(f"{path}: {len(images[: arguments.images])} images")


def read_fashion(source: Path) -> Splits:
    splits = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz")
        splits[split] = images, read_idx(source / f"{prefix}-labels-idx1-ubyte.gz")
    return splits


def read_digits() -> Splits:
    """Four fifths to train with; the last fifth are test images."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        sys.exit("--digits needs scikit-learn: pip install scikit-learn")
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    labels, end = digits.target.astype(np.uint8), len(images) * 4 // 5
    return {"train": (images[:end], labels[:end]), "test": (images[end:], labels[end:])}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes: two zeros, type 8, number of dimensions, each dimension in four bytes, values."""
    if not path.is_file():
        sys.exit(f"'{path}' is missing: apt-get install dataset-fashion-mnist, or name the folder with --source.")
    data = gzip.decompress(path.read_bytes())
    zeros, kind, n_dims = struct.unpack_from(">HBB", data)
    if (zeros, kind) != (0, 8):
        sys.exit(f"'{path}' is no IDX file of bytes.")
    shape = struct.unpack_from(f">{n_dims}I", data, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * n_dims).reshape(shape)


def write_parquet(path: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8], *, names: tuple[str, ...]) -> None:
    """PNG files and labels, the names of the classes in the schema as the `datasets` library writes them."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    schema = pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    files = [{"bytes": png(image), "path": None} for image in images]
    pq.write_table(pa.table({"image": files, "label": labels.astype(np.int64)}, schema), path)


def png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
