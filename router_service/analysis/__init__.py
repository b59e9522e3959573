"""Reads a message: its tone, pace, intent, topics and language."""

from router_service.analysis.reader import Reader, WeightsError
from router_service.analysis.reading import Analysis, Evidence, Intent, Rhythm, Tone
from router_service.analysis.vocabulary import INTENTS, PACES, READ_INTENTS, TONES, TOPICS

__all__ = [
    "INTENTS",
    "PACES",
    "READ_INTENTS",
    "TONES",
    "TOPICS",
    "Analysis",
    "Evidence",
    "Intent",
    "Reader",
    "Rhythm",
    "Tone",
    "WeightsError",
]
