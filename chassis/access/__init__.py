"""Who may call, and how often: keys, tokens, limits."""

from chassis.access.door import open_door
from chassis.access.settings import AccessSettings

__all__ = ["AccessSettings", "open_door"]
