"""What a person's decision is bound to: the images it was made about. Standard library only, for the plugin too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

FITS = 512


def bound_digest(images: Iterable[str], resolved: Mapping[str, str]) -> str:
    """The images of an attempt in one line, by the digest each stood for where that is known: a tag can be moved.

    Shortened by hashing when they do not fit.

    >>> bound_digest(["shop:2", "proxy@sha256:ab"], {"shop:2": "sha256:cd"})
    'shop:2@sha256:cd,proxy@sha256:ab'
    """
    named = (f"{image}@{resolved[image]}" if resolved.get(image) and "@" not in image else image for image in images)
    text = ",".join(named)
    return text if len(text) <= FITS else "sha256:" + hashlib.sha256(text.encode()).hexdigest()
