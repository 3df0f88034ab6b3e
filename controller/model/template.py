"""Pod templates, and how revisions are told apart: by a hash of ours.

The one thing to know: `pod-template-hash` exists only once a ReplicaSet does, and a held candidate has none yet.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

HASH_LABEL = "pod-template-hash"


def plain_template(template: Mapping[str, Any]) -> dict[str, Any]:
    """A pod template as its Deployment has it: without the label that the Deployment controller adds."""
    metadata = {name: value for name, value in (template.get("metadata") or {}).items() if value is not None}
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != HASH_LABEL}
    metadata.pop("labels", None)
    return dict(template) | {"metadata": metadata | ({"labels": labels} if labels else {})}


def template_hash(template: Mapping[str, Any]) -> str:
    """The same 10 characters for a Deployment's template and for that of its ReplicaSet, on every API server.

    >>> bare = {"metadata": {"labels": {"app": "cart"}}}
    >>> of_replicaset = {"metadata": {"labels": {"app": "cart", "pod-template-hash": "5d9"}}}
    >>> template_hash(bare) == template_hash(of_replicaset), len(template_hash(bare))
    (True, 10)
    """
    canonical = json.dumps(plain_template(template), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]
