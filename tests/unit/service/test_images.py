"""Folders of images by name: what else lies beside them is in nobody's way."""

from __future__ import annotations

import pytest

from service.errors import NotFoundError, StorageError
from service.images import find_images


@pytest.fixture
def images_dir(tmp_path):
    """A folder of images beside a link to itself, a broken one, one that leads out, and a file."""
    folder = tmp_path / "images"
    (folder / "mine").mkdir(parents=True)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "broken").symlink_to(folder / "nowhere")
    (folder / "out").symlink_to(tmp_path)
    (folder / "file").touch()
    return folder


def test_a_folder_is_found_whatever_lies_beside_it(images_dir):
    assert find_images(images_dir, "mine") == images_dir / "mine"


@pytest.mark.parametrize("name", ["loop", "broken", "out", "file", "other"])
def test_what_is_no_folder_here_is_unknown_and_those_there_are_are_named(images_dir, name):
    with pytest.raises(NotFoundError, match=r"There are: mine\.$") as caught:
        find_images(images_dir, name)
    assert caught.value.code == "unknown_images"


def test_a_folder_of_images_that_is_a_loop_is_named(images_dir):
    with pytest.raises(StorageError, match="Check TAILOR_IMAGES_DIR"):
        find_images(images_dir / "loop", "mine")
