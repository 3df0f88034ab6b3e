"""The stamp `serin.dev/epoch` of objects that have no rule of their own against an older leader: `<term>.<count>`.

The one thing to know: whoever may edit such an object may write anything there, so what no leader can have written
counts as no stamp and never as an error: a way back leads over it.
"""

from __future__ import annotations

import re

_STAMP = re.compile(r"([0-9]{1,10})\.[0-9]{1,10}")
"""A term fits into 32 bits, as the Lease has it."""


def term_of(stamp: str) -> int:
    """Whose stamp it is; 0, below every leader's, where it is none.

    >>> term_of("3.1"), term_of(""), term_of("²"), term_of("9" * 5000)
    (3, 0, 0, 0)
    """
    found = _STAMP.fullmatch(stamp)
    return int(found[1]) if found else 0
