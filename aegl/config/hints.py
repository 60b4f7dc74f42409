"""Near names for misspelt ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``" (did you mean x or y?)"`` with the nearest known names, or nothing.

    A dotted word of a known section is compared with that section's keys only; one of no section is also compared with
    the last parts of dotted names, so that ``mu`` leads to ``loss.mu``.
    """
    near = _near(word, list(known))
    return f" (did you mean {' or '.join(near[:2])}?)" if near else ""


def _near(word: str, names: list[str]) -> list[str]:
    section, dot, _ = word.rpartition(".")
    inside = [name for name in names if dot and name.startswith(f"{section}.")]
    tails: dict[str, list[str]] = {}
    for name in inside or names:
        tails.setdefault(name.rpartition(".")[2], []).append(name)
    tail = word.rpartition(".")[2]
    close = [] if inside else difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    close_tails = difflib.get_close_matches(tail, tails, n=2, cutoff=0.6 if inside else 0.75)
    begun = [name for name in names if not dot and len(word) > 2 and name.startswith(word)]
    found = tails.get(tail, []) + begun + close + [name for match in close_tails for name in tails[match]]
    return list(dict.fromkeys(found))
