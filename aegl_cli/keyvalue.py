"""`key=value`, `--key value`, `--key=value` and `--flag`, mixed, to one dictionary."""

from __future__ import annotations

from collections.abc import Sequence

from aegl.errors import ConfigError

FLAGS = {
    "--json": "print the result as one JSON object on standard output",
    "--quiet": "no progress: on standard error only warnings and errors, on standard output the result",
}
"""Words that every verb takes and that are no keys of the configuration, with their help."""


def parse(words: Sequence[str], *, positional: str | None = None, many: bool = False) -> dict[str, str]:
    """Arguments of a verb, without the flags among them.

    Args:
        words: as the shell gave them.
        positional: key that a single bare word stands for, if the verb has one.
        many: whether further bare words add to it.

    Returns:
        Values by dotted key.

    Raises:
        ConfigError: for a word that is neither, or a key given twice with different values.
    """
    found: dict[str, str] = {}
    bare: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in FLAGS:
            continue
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            if not equals:
                takes_next = bool(rest) and not rest[0].startswith("--") and not _is_pair(rest[0])
                value = rest.pop(0) if takes_next else "true"
        elif _is_pair(word):
            key, _, value = word.partition("=")
        elif positional is not None and positional not in found:
            key, value = positional, word
            bare.append(word)
        elif positional is not None and many and bare:
            bare.append(word)
            found[positional] = ",".join(bare)
            continue
        else:
            raise ConfigError(f"{word}: not understood; arguments are key=value or --key value")
        key = key.replace("-", "_")
        if not key:
            raise ConfigError(f"{word}: no key before the value; arguments are key=value or --key value")
        if found.get(key, value) != value:
            raise ConfigError(f"{key}: given twice, as {found[key]} and as {value}")
        found[key] = value
    return found


def _is_pair(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and key.replace("_", "").replace(".", "").replace("-", "").isalnum()
