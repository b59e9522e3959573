"""Korean particles: which of two forms a word takes, by the sound it ends in."""

from __future__ import annotations

from typing import Final

_HANGUL_FIRST: Final = ord("가")
_HANGUL_LAST: Final = ord("힣")
_FINALS: Final = 28  # a syllable's place within so many of a row is its final consonant; 0: none
_RIEUL: Final = 8
# Digits by how they are read: 영 일 이 삼 사 오 육 칠 팔 구.
_DIGIT_FINALS: Final = dict(zip("0123456789", (21, 8, 0, 16, 0, 0, 1, 8, 8, 0), strict=True))


def topic(word: str) -> str:
    """The word with 은 or 는."""
    return word + _form(word, "은", "는")


def subject(word: str) -> str:
    """The word with 이 or 가."""
    return word + _form(word, "이", "가")


def target(word: str) -> str:
    """The word with 을 or 를."""
    return word + _form(word, "을", "를")


def means(word: str, *, shown: str = "") -> str:
    """`shown`, or the word, with 으로 or 로, which follows ㄹ too."""
    return (shown or word) + ("로" if _final(word) == _RIEUL else _form(word, "으로", "로"))


def _form(word: str, after_consonant: str, after_vowel: str) -> str:
    final = _final(word)
    if final is None:  # both, as usual where the sound is not to be seen
        return f"{after_consonant}({after_vowel})"
    return after_consonant if final else after_vowel


def _final(word: str) -> int | None:
    """The number of the final consonant, 0 where there is none, None where the letters do not tell."""
    last = word[-1:]
    if last and _HANGUL_FIRST <= ord(last) <= _HANGUL_LAST:
        return (ord(last) - _HANGUL_FIRST) % _FINALS
    return _DIGIT_FINALS.get(last)
