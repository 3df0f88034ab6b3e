"""Takes secrets out of text before anything stores it.

What people and tools write ends in statuses, Events and records that are kept for years and read by many. Whatever
looks like a credential is replaced where it stands; names, digests and image references stay as they are, because they
are what a record is for. Where it is in doubt the text is lost rather than the secret kept.
"""

from __future__ import annotations

import re
from typing import Any

REDACTED = "[redacted]"

_NAMED = (
    r"(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key"
    r"|credentials?|signature)"
)
_SHAPES = (
    # Keys, also cut off by whoever passed them on.
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)",
    r"AGE-SECRET-KEY-1[0-9A-Z]{20,}",
    # JSON Web Tokens, those of service accounts among them.
    r"\beyJ[\w-]{5,}\.[\w-]{5,}(?:\.[\w-]*)?",
    # Tokens that carry their maker's mark.
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bgithub_pat_\w{20,}",
    r"\bgl(?:pat|dt|rt|cbt)-[\w-]{16,}",
    r"\bxox[abeoprs]-[\w-]{10,}",
    r"\bxapp-[\w-]{10,}",
    r"\bsk-[\w-]{20,}",
    r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
    r"\bAIza[\w-]{30,}",
    r"\bya29\.[\w-]{20,}",
    r"\bnpm_[A-Za-z0-9]{30,}",
    r"\bpypi-[\w-]{30,}",
    r"\bhf_[A-Za-z0-9]{30,}",
    r"\bdop_v1_[a-f0-9]{32,}",
    r"\bhv[bsr]\.[\w-]{20,}",
    r"\bhooks\.slack\.com/services/[\w/-]+",
)
_AFTER = (
    # user:password@ of an address; an image's digest is none.
    (r"(://)[^/\s@\"'<>]+(?=@)(?!@sha256:)", re.NOFLAG),
    (
        r"(\bauthorization[\"']?\s*[:=]\s*[\"']?(?:(?:basic|bearer|token)\s+)?)(?!(?:basic|bearer|token)\b)[^\s\"',;]+",
        re.I,
    ),
    (r"(\b(?:basic|bearer)\s+)(?=\S*\d)[A-Za-z0-9._~+/=-]{16,}", re.I),
    # NAME=value, --name=value, name: value, "name": "value"; not an image such as token:1.8.
    (rf"({_NAMED}[\"']?\s*(?:=\s*|:\s+|(?<=[\"'])\s*:\s*)[\"']?)(?!\s)[^\s\"',;&]{{4,}}", re.I),
)
_WHOLE = re.compile("|".join(_SHAPES), re.DOTALL)
_BEHIND = tuple(re.compile(pattern, flags) for pattern, flags in _AFTER)


def redact(text: str) -> str:
    """The text without what looks like a credential.

    >>> redact("rolled back: DATABASE_PASSWORD=hunter2 was wrong in shop@sha256:0123")
    'rolled back: DATABASE_PASSWORD=[redacted] was wrong in shop@sha256:0123'
    """
    text = _WHOLE.sub(REDACTED, text)
    for pattern in _BEHIND:
        text = pattern.sub(rf"\g<1>{REDACTED}", text)
    return text


def redact_all(value: Any) -> Any:
    """The same for every string in a value of plain mappings and lists; names of fields stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: redact_all(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(each) for each in value]
    return value
