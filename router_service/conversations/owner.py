"""Whose a session is."""

from __future__ import annotations

import hashlib

from chassis import caller


def owner_of(principal: str, user_id: str) -> str:
    """64 hex digits for one user of one caller: what the database knows instead of names. Where authentication is off
    the principal is "", and whoever gives a `user_id` is that user."""
    # Its length keeps the two apart: no other pair has the same text.
    return hashlib.sha256(f"{len(principal)}:{principal}{user_id}".encode("utf-8", "surrogatepass")).hexdigest()


def current_owner(user_id: str) -> str:
    """For the caller of the current call."""
    return owner_of(caller.current().principal, user_id)
