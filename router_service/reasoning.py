"""Says in one sentence why a persona was chosen: in Korean for a Korean message, in English for others and for keys."""

from __future__ import annotations

from typing import Final

from router_service import korean
from router_service.personas import Persona, PersonaTable
from router_service.routing import PersonaScore, Routing

_TONES: Final = {
    "frustrated": "답답함",
    "calm": "차분함",
    "curious": "호기심",
    "analytical": "분석",
    "playful": "장난기",
    "anxious": "불안",
    "urgent": "다급함",
    "confused": "혼란",
    "collaborative": "협력",
}
_PACES: Final = {"burst": "짧음", "flowing": "고름", "contemplative": "긺", "medium": "보통"}
_INTENTS: Final = {
    "inquiry": "질문",
    "request": "요청",
    "statement": "서술",
    "expressive": "감정 표현",
    "seek_advice": "조언 구하기",
    "problem_solving": "문제 해결",
    "learning": "학습",
    "validation": "확인",
    "planning": "계획",
    "reflection": "성찰",
}
_TOPICS: Final = {"data": "데이터", "code": "코드", "feelings": "감정", "planning": "계획"}


def sentence(routing: Routing, table: PersonaTable, *, unanswered: bool = False) -> str:
    """`unanswered`: the model could not answer, and the sentence ends in saying so."""
    persona = table.get(routing.persona)
    if routing.signals.language == "ko":
        other = table.get(routing.secondary).korean_name if routing.second else ""
        ending = "지만 모델이 답하지 못했어요." if unanswered else "어요."
        return f"{_korean_parts(routing)} {_korean_outcome(routing, persona, other)}{ending}"
    ending = ", but the model could not answer." if unanswered else "."
    return f"{_english_parts(routing)} {_english_outcome(routing, persona)}{ending}"


def _english_parts(routing: Routing) -> str:
    signals, best = routing.signals, routing.best
    notes = dict.fromkeys(signals.defaulted_parts, ", the default for an unknown one")
    if signals.abstained:
        notes["tone"] = ", as none was clear"
    tone, pace, intent = (
        f"{name} {value} ({contribution:.2f}{notes.get(name, '')})"
        for name, value, contribution in (
            ("tone", signals.tone, best.tone),
            ("pace", signals.pace, best.pace),
            ("intent", signals.intent, best.intent),
        )
    )
    return f"T{tone[1:]}, {pace} and {intent} give"


def _english_outcome(routing: Routing, persona: Persona) -> str:
    best, second = routing.best, routing.second
    won = f"{best.persona} {best.score:.2f}"
    if second is None:
        return f"{won}, the only persona"
    if routing.pinned:
        better = f" though {second.persona} matches better with {second.score:.2f}" if routing.margin < 0 else ""
        return f"{won}, who was asked for{better}"
    if not routing.decided_by:
        return f"{won}, which is {_margin(routing, 'less than 0.01')} ahead of {second.persona}"
    reasons = {
        "topic": f"the subject ({' and '.join(_subjects(routing, persona))})",
        "session": "having answered last",
        "draw": "a stable draw",
    }
    decided = " with ".join(reasons[reason] for reason in routing.decided_by)
    return f"{won} beside {second.score:.2f} for {second.persona}, and {decided} decided"


def _korean_parts(routing: Routing) -> str:
    signals, best = routing.signals, routing.best
    unclear = "뚜렷하지 않아 " if signals.abstained else ""
    intent = _INTENTS[signals.intent]
    return (
        f"말투는 {unclear}{_TONES[signals.tone]}({best.tone:.2f}), 호흡은 {_PACES[signals.pace]}({best.pace:.2f}), "
        f"의도는 {korean.means(intent, shown=f'{intent}({best.intent:.2f})')} 읽혀"
    )


def _korean_outcome(routing: Routing, persona: Persona, other: str) -> str:
    """Up to the stem of the verb, which takes 어요 and 지만 alike."""
    best, second, name = routing.best, routing.second, persona.korean_name
    if second is None:
        return f"하나뿐인 {korean.subject(name)} {best.score:.2f}점을 받았"
    if routing.pinned:
        return f"{_korean_pinned(routing, second, name, other)} 요청하신 대로 골랐"
    if not routing.decided_by:
        ahead = _margin(routing, "0.01점 미만으로", "점")
        return f"{korean.subject(name)} {best.score:.2f}점으로 {korean.target(other)} {ahead} 앞섰"
    reasons = {
        "topic": f"메시지의 주제({', '.join(_TOPICS[topic] for topic in _subjects(routing, persona))})를 보고",
        "session": "바로 앞에서 답한",
        "draw": "늘 같은 결과를 내는 추첨으로",
    }
    decided = " ".join(reasons[reason] for reason in routing.decided_by)
    scores = f"{korean.subject(name)} {best.score:.2f}점, {korean.subject(other)} {second.score:.2f}점으로"
    return f"{scores} 비슷해서 {decided} {korean.target(name)} 골랐"


def _korean_pinned(routing: Routing, second: PersonaScore, name: str, other: str) -> str:
    if routing.margin < 0:
        return f"{korean.topic(name)} {routing.best.score:.2f}점으로 {other}({second.score:.2f}점)보다 덜 맞아도"
    return f"{routing.best.score:.2f}점인 {korean.target(name)}"


def _subjects(routing: Routing, persona: Persona) -> list[str]:
    """What the message is about and the persona is strong in."""
    return [topic for topic, _ in routing.signals.topics if topic in persona.topics]


def _margin(routing: Routing, tiny: str, unit: str = "") -> str:
    shown = f"{routing.margin:.2f}"
    return tiny if shown == "0.00" else shown + unit
