"""Near names for misspelt ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" (did you mean x?)"`` for the nearest known names, or nothing."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    # `mu` is too short a word to be near `loss.mu`; its last part is not.
    near += [name for name in names if name.rpartition(".")[2] == word.rpartition(".")[2] and name not in near][:2]
    return f" (did you mean {' or '.join(near[:3])}?)" if near else ""
