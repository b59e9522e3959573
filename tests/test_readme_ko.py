"""README.ko.md is README.md in Korean, section by section."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
EACH_OTHER = {"README.md", "README.ko.md"}
DEFAULTS_IN_WORDS = {
    "unset": "없음",
    "the user's state folder": "사용자의 상태(state) 폴더",
    "`personas/` of the installation": "설치된 `personas/`",
    "standard": "표준",
}


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, up to the next heading of any level."""

    level: str
    title: str
    tokens: list[Token]

    def inline(self) -> Iterator[Token]:
        """The parts of all paragraphs and cells, flat."""
        for token in self.tokens:
            yield from token.children or ()

    def rows(self) -> Iterator[list[Token]]:
        """The cells of each row of each table."""
        cells: list[Token] = []
        for before, token in zip(self.tokens, self.tokens[1:], strict=False):
            if before.type in {"th_open", "td_open"}:
                cells.append(token)
            elif token.type == "tr_close":
                yield cells
                cells = []


def sections(name: str) -> list[Section]:
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / name).read_text("utf-8"))
    starts = [index for index, token in enumerate(tokens) if token.type == "heading_open"]
    ends = [*starts[1:], len(tokens)]
    return [
        Section(tokens[start].tag, tokens[start + 1].content, tokens[start + 1 : end])
        for start, end in zip(starts, ends, strict=True)
    ]


ENGLISH = sections("README.md")
KOREAN = sections("README.ko.md")


def code_blocks(section: Section) -> list[str]:
    return [f"{token.info}\n{token.content}" for token in section.tokens if token.type in {"fence", "code_block"}]


def inline_code(section: Section) -> list[str]:
    return sorted(token.content for token in section.inline() if token.type == "code_inline")


def links(section: Section) -> list[str]:
    targets = (str(token.attrs["href"]) for token in section.inline() if token.type == "link_open")
    return sorted(target for target in targets if target not in EACH_OTHER)


def images(section: Section) -> list[str]:
    return [str(token.attrs["src"]) for token in section.inline() if token.type == "image"]


def table_rows(section: Section) -> list[str]:
    """Of each row, the code in each of its cells: the rest is in another language."""
    return [" | ".join(" ".join(sorted(re.findall(r"`.+?`", cell.content))) for cell in row) for row in section.rows()]


def settings(section: Section) -> list[str]:
    """Name and default of each row of the table of settings, the defaults that are words in Korean."""
    rows = ([cell.content for cell in row] for row in section.rows())
    return [f"{row[0]} {DEFAULTS_IN_WORDS.get(row[1], row[1])}" for row in rows if re.fullmatch("`[A-Z_*]+`", row[0])]


def shape(section: Section) -> list[str]:
    """Paragraphs, lists, tables and blocks in their order."""
    return [token.type for token in section.tokens if token.nesting == 1 or token.type in {"fence", "code_block"}]


def difference(english: list[str], korean: list[str]) -> str:
    missing = list((Counter(english) - Counter(korean)).elements())
    surplus = list((Counter(korean) - Counter(english)).elements())
    if missing or surplus:
        return f"only in README.md: {missing}; only in README.ko.md: {surplus}"
    return "in another order"


def test_headings_are_the_same():
    pairs = list(zip(ENGLISH, KOREAN, strict=False))
    unlike = [(en, ko) for en, ko in pairs if en.level != ko.level or inline_code(en) != inline_code(ko)]
    parted = [f"{english.title!r} ({korean.title!r})" for english, korean in unlike] or ["the end"]
    english, korean = ([section.level for section in readme] for readme in (ENGLISH, KOREAN))
    assert english == korean, f"the sections part at {parted[0]}"


@pytest.mark.parametrize("facts", [code_blocks, inline_code, links, images, table_rows, settings, shape])
def test_every_section_has_the_same(facts):
    assert any(facts(section) for section in ENGLISH)
    out_of_step = [
        f"{english.title!r} ({korean.title!r}): {difference(facts(english), facts(korean))}"
        for english, korean in zip(ENGLISH, KOREAN, strict=False)
        if facts(english) != facts(korean)
    ]
    assert not out_of_step, f"{facts.__name__}: " + "\n".join(out_of_step)


def figures(section: Section) -> Counter[str]:
    text = " ".join(token.content for token in section.inline() if token.type == "text")
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


def test_every_figure_is_told():
    """Korean may write more in digits, such as 네 번 as 4번, but what English has in digits it has."""
    untold = {en.title: figures(en) - figures(ko) for en, ko in zip(ENGLISH, KOREAN, strict=False)}
    assert not {title: missing for title, missing in untold.items() if missing}


def test_what_is_read_is_korean():
    """Pictures' texts and paragraphs; a paragraph of links alone has none to translate."""
    for section in KOREAN:
        texts = [token.content for token in section.inline() if token.type == "image"]
        for before, token in zip(section.tokens, section.tokens[1:], strict=False):
            if before.type == "paragraph_open" and token.content != "[English](README.md)":
                texts.append(token.content)
        foreign = [text for text in texts if not re.search("[가-힣]", text)]
        assert not foreign, section.title


def test_each_readme_links_to_the_other_under_its_title():
    assert [token.content for token in ENGLISH[0].tokens if token.type == "inline"][1] == "[한국어](README.ko.md)"
    assert [token.content for token in KOREAN[0].tokens if token.type == "inline"][1] == "[English](README.md)"


def test_links_within_the_page_arrive():
    anchors = {"#" + re.sub(r"[^\w -]", "", section.title.lower()).replace(" ", "-") for section in KOREAN}
    assert {link for section in KOREAN for link in links(section) if link.startswith("#")} <= anchors
