"""ImageSet: reading class folders and loose images, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from supernet.data.images import ImageSet, load_class_folders, load_images
from supernet.errors import InvalidDatasetError

Write = Callable[..., Path]


# ---------------------------------------------------------------------- class folders


def test_class_folders_become_labels_in_sorted_order(tmp_path: Path, class_folders: Write) -> None:
    images = load_class_folders(class_folders(tmp_path, n=2), size=8)
    assert images.classes == ("blue", "green", "red")
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert (images.pixels.shape, images.pixels.dtype) == ((6, 8, 8, 3), np.uint8)
    assert images.pixels[4, 0, 0].tolist() == [250, 0, 0]


@pytest.mark.parametrize(
    ("name", "mode", "colour", "expected"),
    [
        ("grey.png", "L", 90, [90, 90, 90]),
        ("alpha.png", "RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("palette.png", "P", 0, [0, 0, 0]),
        ("bits.png", "1", 1, [255, 255, 255]),
        ("image.webp", "RGB", (10, 20, 30), [10, 20, 30]),
        ("image.bmp", "RGB", (10, 20, 30), [10, 20, 30]),
        ("IMAGE.PNG", "RGB", (10, 20, 30), [10, 20, 30]),
    ],
)
def test_every_kind_of_image_becomes_rgb(
    tmp_path: Path, class_folders: Write, write_image: Write, name: str, mode: str, colour: Any, expected: list[int]
) -> None:
    class_folders(tmp_path, ("blue", "green"), n=1)
    write_image(tmp_path / "other" / name, colour, mode=mode)
    images = load_class_folders(tmp_path, size=8)
    assert images.pixels[2].reshape(-1, 3).tolist() == [expected] * 64


def test_jpeg_files_are_read(tmp_path: Path, class_folders: Write, write_image: Write) -> None:
    class_folders(tmp_path, ("blue",), n=1)
    for index, suffix in enumerate((".jpg", ".jpeg", ".JPG")):
        write_image(tmp_path / "grey" / f"{index}{suffix}", (100, 100, 100))
    images = load_class_folders(tmp_path, size=8)
    assert images.labels.tolist() == [0, 1, 1, 1]
    assert np.abs(images.pixels[1:].astype(int) - 100).max() <= 2


def test_images_lie_deeper_and_other_files_are_ignored(
    tmp_path: Path, class_folders: Write, write_image: Write
) -> None:
    class_folders(tmp_path, n=1)
    write_image(tmp_path / "red" / "2024" / "a.png")
    (tmp_path / "red" / "notes.txt").write_text("no image")
    (tmp_path / "red" / "folder.png").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.md").write_text("no class")
    assert load_class_folders(tmp_path, size=8).labels.tolist() == [0, 1, 2, 2]


def test_large_images_are_shrunk_by_the_shorter_side_and_cut_at_the_centre(
    tmp_path: Path, class_folders: Write
) -> None:
    class_folders(tmp_path, ("blue",), n=1)
    (tmp_path / "wide").mkdir()
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 200
    Image.fromarray(pixels).save(tmp_path / "wide" / "a.png")
    wide = load_class_folders(tmp_path, size=10).pixels[1]
    assert (wide[:, 1:-1] == 200).all()
    (tmp_path / "wide" / "b.png").unlink(missing_ok=True)
    Image.fromarray(np.full((3, 2, 3), 50, np.uint8)).save(tmp_path / "wide" / "a.png")
    assert (load_class_folders(tmp_path, size=10).pixels[1] == 50).all()


def test_given_classes_decide_the_labels_and_may_be_absent(tmp_path: Path, class_folders: Write) -> None:
    class_folders(tmp_path, ("red", "green"), n=1)
    images = load_class_folders(tmp_path, size=8, classes=("red", "blue", "green"))
    assert images.classes == ("red", "blue", "green")
    assert images.labels.tolist() == [0, 2]


def test_unknown_classes_are_named(tmp_path: Path, class_folders: Write) -> None:
    class_folders(tmp_path)
    with pytest.raises(InvalidDatasetError, match=r"classes the training images lack: \['red'\]"):
        load_class_folders(tmp_path, size=8, classes=("blue", "green"))


def test_broken_images_are_named(tmp_path: Path, class_folders: Write) -> None:
    broken = class_folders(tmp_path) / "green" / "1.png"
    os.truncate(broken, broken.stat().st_size // 2)
    with pytest.raises(InvalidDatasetError, match=r"green/1\.png: this image cannot be decoded"):
        load_class_folders(tmp_path, size=8)
    broken.write_bytes(b"")
    with pytest.raises(InvalidDatasetError, match=r"green/1\.png"):
        load_class_folders(tmp_path, size=8)
    broken.write_text("<svg/>")
    with pytest.raises(InvalidDatasetError, match=r"green/1\.png"):
        load_class_folders(tmp_path, size=8)


def test_broken_images_are_skipped_and_named_where_that_is_wanted(
    tmp_path: Path, class_folders: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path)
    empty, unreadable = tmp_path / "blue" / "3.png", tmp_path / "green" / "1.png"
    empty.write_bytes(b"")
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == unreadable:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    images = load_class_folders(tmp_path, size=8, skip_broken=True)
    assert images.skipped == (str(empty), str(unreadable))
    assert images.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 4
    assert (images.pixels[:, 0, 0].argmax(axis=1) == 2 - images.labels).all()  # each of its class's colour
    assert images.classes == ("blue", "green", "red")


def test_a_class_of_broken_images_is_no_class_to_skip(tmp_path: Path, class_folders: Write) -> None:
    class_folders(tmp_path, n=2)
    for file in (tmp_path / "green").iterdir():
        file.write_text("<svg/>")
    with pytest.raises(
        InvalidDatasetError,
        match=r"all images of the class 'green' are broken\. The first: .*green/0\.png: .*it is none of JPEG",
    ):
        load_class_folders(tmp_path, size=8, skip_broken=True)
    for file in tmp_path.glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(InvalidDatasetError, match=r"all images are broken\. The first: .*blue/0\.png"):
        load_class_folders(tmp_path, size=8, skip_broken=True)


def test_nothing_is_skipped_where_nothing_is_broken(tmp_path: Path, class_folders: Write) -> None:
    images = load_class_folders(class_folders(tmp_path), size=8, skip_broken=True)
    assert (len(images), images.skipped) == (12, ())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_damaged_bytes_never_raise_anything_else(
    tmp_path: Path, class_folders: Write, write_image: Write, rng: np.random.Generator, suffix: str
) -> None:
    class_folders(tmp_path, ("blue", "green"), n=1)
    path = write_image(tmp_path / "red" / f"a{suffix}")
    whole = path.read_bytes()
    refused = 0
    for _ in range(40):
        data = bytearray(whole[: rng.integers(0, len(whole))])
        for _ in range(int(rng.integers(0, 4))):
            if data:
                data[rng.integers(0, len(data))] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            load_class_folders(tmp_path, size=8)
        except InvalidDatasetError as error:
            refused += str(path) in str(error)
    assert refused > 20


def test_empty_classes_are_named(tmp_path: Path, class_folders: Write) -> None:
    class_folders(tmp_path)
    (tmp_path / "yellow").mkdir()
    with pytest.raises(InvalidDatasetError, match=r"yellow' has no images \(\.jpg"):
        load_class_folders(tmp_path, size=8)


def test_one_class_or_none_is_refused(tmp_path: Path, class_folders: Write) -> None:
    with pytest.raises(InvalidDatasetError, match="holds no images"):
        load_class_folders(tmp_path, size=8)
    class_folders(tmp_path, ("red",))
    with pytest.raises(InvalidDatasetError, match="one class only"):
        load_class_folders(tmp_path, size=8)


def decoded(folder: Path, name: str, data: bytes, *, size: int = 8) -> np.ndarray:
    """The pixels that are read from a file of these bytes."""
    (folder / name).write_bytes(data)
    try:
        return load_images(folder, size=size, most=1, rng=np.random.default_rng(0)).pixels[0]
    finally:
        (folder / name).unlink()


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits per channel, which Pillow cannot write: `(height, width, 1 to 4)` uint16."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, chs = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[chs], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


@pytest.mark.parametrize("chs", [1, 2, 3, 4])
def test_16_bits_become_8_by_scale_in_grey_as_in_colour(tmp_path: Path, chs: int) -> None:
    levels = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8, 1)
    pixels = np.repeat(levels, chs, axis=2)
    if chs in (2, 4):
        pixels[..., -1] = 65535
    read = decoded(tmp_path, "a.png", png16(pixels))
    assert (read == (levels >> 8)).all()
    assert (read.min(), read.max()) == (0, 255)


def test_8_bits_written_as_16_come_back_exactly(tmp_path: Path, rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (8, 8, 1)).astype(np.uint16)
    assert (decoded(tmp_path, "a.png", png16(grey * 257)) == grey).all()


def written(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_images_are_turned_as_their_exif_data_say(tmp_path: Path, form: str, orientation: int) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :8], pixels[:8, 8:], pixels[8:, :8] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = written(Image.fromarray(pixels), form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    read = decoded(tmp_path, "a.jpg", data, size=16)
    assert (read == np.asarray(expected)).all()
    corner = {2: (0, 15), 3: (15, 15), 4: (15, 0), 5: (0, 0), 6: (0, 15), 7: (15, 15), 8: (15, 0)}.get(
        orientation, (0, 0)
    )
    assert read[corner][0] > 100  # where the red corner has gone


@pytest.mark.parametrize("exif", [b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\xff\xff\xff\xff", b"xxxx", b"MM\0*", b"\0" * 40])
def test_damaged_exif_data_turn_nothing(tmp_path: Path, exif: bytes) -> None:
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    read = decoded(tmp_path, "a.jpg", written(image, "JPEG", exif=b"Exif\0\0" + exif))
    assert np.abs(read.astype(int) - (10, 20, 30)).max() <= 3


def test_cmyk_images_of_printers_are_read(tmp_path: Path) -> None:
    data = written(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")
    assert np.abs(decoded(tmp_path, "a.jpg", data).astype(int) - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it holds no bytes"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "it is none of JPEG, PNG"),
        (b"P5 2 2 255 abcd", "it is none of JPEG, PNG"),
        (written(Image.new("F", (8, 8)), "TIFF"), "32 bits per pixel, mode F"),
        (written(Image.new("I", (8, 8)), "TIFF"), "32 bits per pixel, mode I"),
    ],
    ids=["empty", "eps", "pgm", "float", "int"],
)
def test_other_content_is_refused_whatever_the_suffix(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(InvalidDatasetError, match=rf"a\.png: this image cannot be decoded \({why}"):
        decoded(tmp_path, "a.png", data)


def test_decompression_bombs_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(Image.new("1", (200, 200)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 25_000)  # warned of, but a photograph may be as large
    assert decoded(tmp_path, "a.png", data).shape == (8, 8, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)
    with pytest.raises(InvalidDatasetError, match=r"a\.png: .*40000 pixels"):
        decoded(tmp_path, "a.png", data)


@pytest.mark.parametrize("shape", [(1, 500_000), (500_000, 1)])
def test_images_of_one_row_do_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int]
) -> None:
    """Resized whole to 32 pixels of height, this one would have 16 million columns."""
    data = written(Image.new("L", shape, 77), "PNG")
    asked_for: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def spy(image: Image.Image, size: tuple[int, int], *args: Any, **options: Any) -> Image.Image:
        asked_for.append(size)
        return resize(image, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    assert (decoded(tmp_path, "a.png", data, size=32) == 77).all()
    assert asked_for == [(32, 32)]


@pytest.mark.parametrize("load", [load_class_folders, partial(load_images, most=3, rng=np.random.default_rng(0))])
def test_what_is_no_folder_is_named(tmp_path: Path, load: Callable[..., ImageSet]) -> None:
    with pytest.raises(InvalidDatasetError, match="absent' does not exist; expected a folder"):
        load(tmp_path / "absent", size=8)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidDatasetError, match="file' is a file; expected a folder"):
        load(tmp_path / "file", size=8)


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, class_folders: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path)

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InvalidDatasetError, match=r"0\.png: this image cannot be read \(Permission denied\)"):
        load_class_folders(tmp_path, size=8)


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb"])
def test_names_of_classes_no_manifest_can_hold_are_refused(tmp_path: Path, class_folders: Write, name: bytes) -> None:
    class_folders(tmp_path)
    (tmp_path / "red").rename(tmp_path / os.fsdecode(name))
    with pytest.raises(InvalidDatasetError, match="names of classes are printable text"):
        load_class_folders(tmp_path, size=8)


# ---------------------------------------------------------------------- loose images


def test_loose_images_are_found_at_every_depth(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "b.png", (1, 1, 1))
    write_image(tmp_path / "a" / "c.png", (2, 2, 2))
    (tmp_path / "folder.png").mkdir()
    images = load_images(tmp_path, size=8, most=100, rng=np.random.default_rng(0))
    assert sorted(images.pixels[:, 0, 0, 0].tolist()) == [1, 2]
    assert images.labels.tolist() == [0, 0]


def test_no_more_loose_images_are_read_than_asked_for(tmp_path: Path, write_image: Write) -> None:
    for shade in range(6):
        write_image(tmp_path / f"{shade}.png", (shade, 0, 0))
    images = load_images(tmp_path, size=8, most=4, rng=np.random.default_rng(0))
    assert len(set(images.pixels[:, 0, 0, 0].tolist())) == 4


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidDatasetError, match="has no images"):
        load_images(tmp_path, size=8, most=100, rng=np.random.default_rng(0))


# ---------------------------------------------------------------------- ImageSet


def test_taking_images_keeps_order_and_classes(rng: np.random.Generator) -> None:
    images = ImageSet(rng.integers(0, 9, (5, 2, 2, 3)).astype(np.uint8), np.arange(5) % 2, ("a", "b"))
    taken = images.take(np.array([3, 0]))
    assert len(taken) == 2
    assert taken.classes == images.classes
    np.testing.assert_array_equal(taken.pixels, images.pixels[[3, 0]])
    assert taken.labels.tolist() == [1, 0]
