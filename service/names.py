"""What ids of supernets, names of spaces and of folders of images may be: they are segments of paths."""

from __future__ import annotations

import re

PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
RULE = "1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit"
_NAME = re.compile(PATTERN, re.ASCII)


def is_name(text: str) -> bool:
    """Whether no path is in it, nor anything else but a name."""
    return _NAME.fullmatch(text) is not None
