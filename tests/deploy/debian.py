"""Prometheus and its tool: those of the machine, or what `make promtool` unpacked of Debian's package."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

_UNPACKED = Path(sys.prefix) / "prometheus" / "usr" / "bin"


def promtool() -> str:
    return _found("promtool")


def prometheus() -> str:
    return _found("prometheus")


def _found(name: str) -> str:
    path = shutil.which(name, path=os.pathsep.join((os.environ["PATH"], str(_UNPACKED))))
    if path is None:
        pytest.skip(f"no {name} here, and `make promtool` could not fetch it")
    return path
