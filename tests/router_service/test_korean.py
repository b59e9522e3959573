"""Korean particles."""

from __future__ import annotations

import pytest

from router_service import korean


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("루아", ("루아는", "루아가", "루아를", "루아로")),
        ("민준", ("민준은", "민준이", "민준을", "민준으로")),
        ("하늘", ("하늘은", "하늘이", "하늘을", "하늘로")),
        ("감정 표현", ("감정 표현은", "감정 표현이", "감정 표현을", "감정 표현으로")),
        ("봇 3", ("봇 3은", "봇 3이", "봇 3을", "봇 3으로")),
        ("봇 2", ("봇 2는", "봇 2가", "봇 2를", "봇 2로")),
        ("봇 1", ("봇 1은", "봇 1이", "봇 1을", "봇 1로")),
        ("Max", ("Max은(는)", "Max이(가)", "Max을(를)", "Max으로(로)")),
        ("", ("은(는)", "이(가)", "을(를)", "으로(로)")),
    ],
)
def test_particles_follow_the_last_sound(word, forms):
    assert (korean.topic(word), korean.subject(word), korean.target(word), korean.means(word)) == forms


def test_what_is_shown_may_go_on_behind_the_word():
    assert korean.means("질문", shown="질문(0.20)") == "질문(0.20)으로"
    assert korean.means("서술", shown="서술(0.20)") == "서술(0.20)로"
