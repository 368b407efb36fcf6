"""`tailor import-ofa`: which of its forms does what, and what it refuses before it works."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.commands.importing import _class_names, import_ofa
from supernet.errors import InvalidConfigError


def test_a_space_is_needed_for_a_supernet(tmp_path: Path) -> None:
    checkpoint = tmp_path / "net.pth"
    checkpoint.write_bytes(b"")
    with pytest.raises(InvalidConfigError, match="with --space"):
        import_ofa(checkpoint, None, tmp_path / "out")


def test_a_specialised_net_brings_its_own_space(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="leave out --space"):
        import_ofa(tmp_path, "ofa_mbv3_w1.0", tmp_path / "out")


def test_classes_are_a_number_or_a_file_of_names(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("cat\n\n dog \n", encoding="utf-8")
    assert _class_names(None) is None
    assert _class_names("3") == ["0", "1", "2"]
    assert _class_names(str(names)) == ["cat", "dog"]


@pytest.mark.parametrize(("content", "message"), [(b"\n", "holds no class names"), (b"\xff\xfe", "no UTF-8 text")])
def test_files_without_names_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidConfigError, match=message):
        _class_names(str(path))


@pytest.mark.parametrize("classes", ["0", "999999", "-3", "many", ""])
def test_what_is_neither_a_number_nor_a_file_is_refused(classes: str) -> None:
    with pytest.raises(InvalidConfigError, match="--classes"):
        _class_names(classes)
