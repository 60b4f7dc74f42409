"""Near names for misspelt ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``", did you mean x or y?"`` with the nearest known names, or nothing.

    A word without a section is also compared with the last part of dotted names: ``mu`` is near ``loss.mu``.
    """
    names = list(known)
    near = [name for name in names if name.rpartition(".")[2] == word.rpartition(".")[2]]
    near += [name for name in difflib.get_close_matches(word, names, n=2, cutoff=0.6) if name not in near]
    if not near:
        tails = {name.rpartition(".")[2]: name for name in reversed(names)}
        near = [tails[tail] for tail in difflib.get_close_matches(word.rpartition(".")[2], tails, n=2, cutoff=0.75)]
    return f", did you mean {' or '.join(near[:3])}?" if near else ""
