"""A checksum at the end of a checkpoint. PyTorch ignores those inside the file: a flipped bit would be loaded."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import IO

_MARK = b"aegl-sha256:"
_LENGTH = len(_MARK) + 2 * hashlib.sha256().digest_size
_COMMENT_FIELD = 2
"""The last bytes of a zip archive without a comment: the comment's length, 0."""


def seal(file: IO[bytes]) -> None:
    """Append the SHA-256 of a zip archive, as its comment: every reader of zip archives still reads it.

    Args:
        file: the archive, open for reading and writing, without a comment.
    """
    digest = _digest(file, file.seek(0, os.SEEK_END) - _COMMENT_FIELD)
    file.seek(-_COMMENT_FIELD, os.SEEK_END)
    file.write(_LENGTH.to_bytes(_COMMENT_FIELD, "little") + _MARK + digest)


def seal_holds(path: Path) -> bool | None:
    """Whether a file is, to the bit, what was sealed; None for a file without a seal."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < _LENGTH + _COMMENT_FIELD:
            return None
        file.seek(-_LENGTH, os.SEEK_END)
        comment = file.read()
        if not comment.startswith(_MARK):
            return None
        return _digest(file, size - _LENGTH - _COMMENT_FIELD) == comment[len(_MARK) :]


def _digest(file: IO[bytes], length: int) -> bytes:
    """Hexadecimal SHA-256 of the first ``length`` bytes."""
    file.seek(0)
    sha = hashlib.sha256()
    while length > 0 and (block := file.read(min(length, 1 << 20))):
        sha.update(block)
        length -= len(block)
    return sha.hexdigest().encode()
