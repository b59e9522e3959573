"""The shipped weights read at least as well as their committed figures say."""

import json
import os
from pathlib import Path

import pytest

from bench import card
from router_service.analysis import Reader
from router_service.personas import DEFAULT_DIRECTORY, load_personas
from router_service.training import corpora

ROOT = Path(__file__).parents[3]
PUBLIC = Path(os.environ.get("ION_TONE_DATA", ROOT.parent / "shared" / "data" / "tone")) / "dev.tsv.gz"
COMMITTED = json.loads(card.FIGURES.read_text(encoding="utf-8"))
SLACK = 0.001  # figures are rounded to four digits; the reading itself is the same everywhere


def check(measured):
    for name, figures in measured.items():
        for figure, value in figures.items():
            committed = COMMITTED[name][figure]
            if figure == "calibration_error":
                assert value <= committed + SLACK, (name, figure)
            else:
                assert value >= committed - SLACK, (name, figure)


def test_on_the_own_corpus():
    measured = card.own_figures(Reader.load(), load_personas(DEFAULT_DIRECTORY))
    assert set(measured) == {"own_dev", "held_back"}
    check(measured)


def test_on_the_samples():
    check({"samples": card.sample_figures(Reader.load(), load_personas(DEFAULT_DIRECTORY), ROOT / "samples")})


@pytest.mark.skipif(
    not PUBLIC.exists(), reason=f"the public dev splits are not at {PUBLIC}: ION_TONE_DATA names their folder"
)
def test_on_the_public_dev_splits():
    measured = card.public_figures(Reader.load(), corpora.read_rows(PUBLIC))
    assert {"goemo", "korean", "3i4k", "mrda", "mrda_nopunct", "public"} <= set(measured)
    check(measured)
