"""How plain values look on the wire: the base of everything that a status holds."""

from __future__ import annotations

from msgspec import Struct


class Value(Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=False):
    """Camel case on the wire; defaults left out; unknown fields of a newer version are not ours to judge."""
