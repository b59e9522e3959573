"""Who may call, and how often: keys, tokens, limits."""

from chassis.access.door import Entrance, open_door, open_entrance
from chassis.access.settings import AccessSettings, require_proof

__all__ = ["AccessSettings", "Entrance", "open_door", "open_entrance", "require_proof"]
