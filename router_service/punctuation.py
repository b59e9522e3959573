"""Messages as those write who leave out marks: for the reader's training and for its evaluation."""

from __future__ import annotations

import re
from typing import Final

_MARKS: Final = re.compile(r"[.?!,;:~…\"]+")
_SPACES: Final = re.compile(r"[ \t]+")


def without_punctuation(text: str) -> str:
    """The text without its marks; as it is where it has nothing else."""
    return _SPACES.sub(" ", _MARKS.sub(" ", text)).strip() or text
