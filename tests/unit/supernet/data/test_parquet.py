"""ImageSet from parquet files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from supernet.data.images import load_parquet
from supernet.errors import InvalidDatasetError

Write = Callable[..., Path]


def test_parquet_files_are_read_in_order(tmp_path: Path, write_parquet: Write) -> None:
    paths = [write_parquet(tmp_path / "a.parquet", [1, 0]), write_parquet(tmp_path / "b.parquet", [3])]
    images = load_parquet(paths, size=8)
    assert images.labels.tolist() == [1, 0, 3]
    assert images.pixels[:, 0, 0, 0].tolist() == [10, 0, 30]
    assert images.classes == ("0", "1", "2", "3")


def test_class_names_of_the_schema_are_kept(tmp_path: Path, write_parquet: Write) -> None:
    info = {"info": {"features": {"label": {"names": ["cat", "dog", "owl"]}}}}
    path = write_parquet(tmp_path / "a.parquet", [1, 0], metadata=json.dumps(info).encode())
    assert load_parquet([path], size=8).classes == ("cat", "dog", "owl")
    path = write_parquet(tmp_path / "a.parquet", [1, 0], metadata=b"no json")
    assert load_parquet([path], size=8).classes == ("0", "1")


def names_of(names: Any) -> bytes:
    return json.dumps({"info": {"features": {"label": {"names": names}}}}).encode()


def test_files_that_name_their_classes_differently_are_refused(tmp_path: Path, write_parquet: Write) -> None:
    first = write_parquet(tmp_path / "a.parquet", [0, 1], metadata=names_of(["cat", "dog"]))
    nameless = write_parquet(tmp_path / "b.parquet", [0, 1])
    assert load_parquet([nameless, first], size=8).classes == ("cat", "dog")
    other = write_parquet(tmp_path / "c.parquet", [0, 1], metadata=names_of(["dog", "cat"]))
    with pytest.raises(
        InvalidDatasetError, match=r"c\.parquet' names its classes \['dog', 'cat'\] …, the files before"
    ):
        load_parquet([first, other], size=8)


@pytest.mark.parametrize(
    "metadata", [names_of("ab"), names_of([1, 2]), names_of([None, "b"]), names_of({"a": 0, "b": 1}), b"[" * 100_000]
)
def test_names_that_are_no_list_of_texts_are_no_names(tmp_path: Path, write_parquet: Write, metadata: bytes) -> None:
    path = write_parquet(tmp_path / "a.parquet", [1, 0], metadata=metadata)
    assert load_parquet([path], size=8).classes == ("0", "1")


def test_bytes_that_are_no_text_inside_a_file_are_refused(tmp_path: Path, write_parquet: Write) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1], img=["xxxxxxxx.png"] * 2)
    path.write_bytes(path.read_bytes().replace(b"xxxxxxxx", b"\xff" * 8))
    with pytest.raises(InvalidDatasetError, match=r"a\.parquet' cannot be read as parquet"):
        load_parquet([path], size=8)


def test_images_may_be_plain_bytes_in_a_column_image(tmp_path: Path, write_image: Write) -> None:
    data = write_image(tmp_path / "a.png", (7, 7, 7)).read_bytes()
    pq.write_table(pa.table({"image": [data, data], "label": [0, 1]}), tmp_path / "a.parquet")
    assert (load_parquet([tmp_path / "a.parquet"], size=8).pixels == 7).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [0, -1]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [0, None]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [None, None]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": ["a", "b"]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [0.5, 1.5]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [[0], [1]]}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": pa.array([2**62, 1], pa.timestamp("ns"))}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": pa.array([2**31 - 1, 1], pa.date32())}, r"a\.parquet' must hold whole numbers from 0"),
        ({"label": [0, 2**40]}, r"label 1099511627776"),
        ({"label": [1, 1]}, "one class only"),
        ({"img": [None, None]}, r"a\.parquet, row 0: this image cannot be decoded"),
        ({"img": [{"path": "x.png"}] * 2}, r"a\.parquet, row 0: this image cannot be decoded"),
        ({"img": [b"", b""]}, r"a\.parquet, row 0: this image cannot be decoded"),
        ({"img": ["x.png", "y.png"]}, r"a\.parquet, row 0: this image cannot be decoded"),
        ({"img": [3, 4]}, r"a\.parquet, row 0: this image cannot be decoded"),
    ],
)
def test_parquet_files_that_cannot_be_trained_on_are_refused(
    tmp_path: Path, write_parquet: Write, columns: dict[str, Any], message: str
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1], **columns)
    with pytest.raises(InvalidDatasetError, match=message):
        load_parquet([path], size=8)


@pytest.mark.parametrize("columns", [{"picture": [b""], "label": [0]}, {"img": [b""], "target": [0]}, {"text": ["a"]}])
def test_missing_columns_are_named(tmp_path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InvalidDatasetError, match=r"needs the columns 'img' or 'image' and 'label'; it has \['"):
        load_parquet([tmp_path / "a.parquet"], size=8)


def test_parquet_files_without_rows_are_refused(tmp_path: Path) -> None:
    table = pa.table({"img": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InvalidDatasetError, match="holds no images"):
        load_parquet([tmp_path / "a.parquet"], size=8)


def test_truncated_parquet_files_are_named(tmp_path: Path, write_parquet: Write) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1])
    whole = path.read_bytes()
    for data in (whole[:-20], whole[: len(whole) // 2], b"", b"PAR1", whole[:100] + b"\0" * 60 + whole[160:]):
        path.write_bytes(data)
        with pytest.raises(InvalidDatasetError, match=r"a\.parquet"):
            load_parquet([path], size=8)


def test_damaged_parquet_files_never_raise_anything_else(
    tmp_path: Path, write_parquet: Write, rng: np.random.Generator
) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1], metadata=names_of(["cat", "dog"]))
    whole = path.read_bytes()
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            load_parquet([path], size=8)
        except InvalidDatasetError as error:
            refused += str(tmp_path) in str(error)
    assert refused > 100


def test_labels_beyond_the_named_classes_are_refused(tmp_path: Path, write_parquet: Write) -> None:
    info = json.dumps({"info": {"features": {"label": {"names": ["cat", "dog"]}}}}).encode()
    path = write_parquet(tmp_path / "a.parquet", [0, 2], metadata=info)
    with pytest.raises(InvalidDatasetError, match="has the label 2 but names only 2 classes"):
        load_parquet([path], size=8)


def test_broken_rows_are_skipped_and_named_where_that_is_wanted(tmp_path: Path, write_parquet: Write) -> None:
    good = write_parquet(tmp_path / "a.parquet", [1, 0])
    rows = pq.read_table(good)["img"].to_pylist()
    broken = [rows[0], {"bytes": rows[1]["bytes"][:40], "path": None}, None, rows[1]]
    damaged = write_parquet(tmp_path / "b.parquet", [1, 2, 0, 2], img=broken)
    images = load_parquet([good, damaged], size=8, skip_broken=True)
    assert images.skipped == (f"{damaged}, row 1", f"{damaged}, row 2")
    assert images.labels.tolist() == [1, 0, 1, 2]
    assert images.pixels[:, 0, 0, 0].tolist() == [10, 0, 10, 0]
    with pytest.raises(InvalidDatasetError, match=r"b\.parquet, row 1: this image cannot be decoded"):
        load_parquet([good, damaged], size=8)


@pytest.mark.parametrize(("names", "named"), [(["cat", "dog", "owl"], "owl"), ([], "2")])
def test_a_label_of_broken_rows_alone_is_refused(
    tmp_path: Path, write_parquet: Write, names: list[str], named: str
) -> None:
    good = write_parquet(tmp_path / "a.parquet", [1, 0], metadata=names_of(names))
    broken = write_parquet(tmp_path / "b.parquet", [2, 2], img=[b"", b""])
    with pytest.raises(InvalidDatasetError, match=rf"all images of the class '{named}' are broken.*b\.parquet, row 0"):
        load_parquet([good, broken], size=8, skip_broken=True)


def test_skipping_forgives_no_other_fault_of_a_file(tmp_path: Path, write_parquet: Write) -> None:
    path = write_parquet(tmp_path / "a.parquet", [0, 1, 2], img=[b"", b"", b""], metadata=names_of(["cat", "dog"]))
    with pytest.raises(InvalidDatasetError, match="has the label 2 but names only 2 classes"):
        load_parquet([path], size=8, skip_broken=True)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InvalidDatasetError, match=r"a\.parquet' cannot be read as parquet"):
        load_parquet([path], size=8, skip_broken=True)
