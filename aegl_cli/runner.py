"""Runs one verb: arguments in, result out as text or JSON, errors as one message and an exit code."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from aegl.errors import AeglError
from aegl_cli.keyvalue import parse
from aegl_cli.progress import ConsoleProgress, LogToProgress

Task = Callable[[dict[str, str], ConsoleProgress], dict[str, Any]]
Render = Callable[[dict[str, Any]], str]


def run(words: Sequence[str], task: Task, render: Render, *, positional: str | None = None) -> int:
    """Run a task and show what it gives.

    Args:
        words: arguments of the verb.
        task: configuration keys and progress to a JSON-able result.
        render: the result as text.
        positional: key that a bare word stands for.

    Returns:
        The exit code: 0, that of the error, or 130 when interrupted.
    """
    progress = ConsoleProgress()
    logger = logging.getLogger("aegl")
    handler = LogToProgress(progress)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    as_json = "--json" in words
    try:
        overrides, as_json = parse(words, positional=positional)
        result = task(overrides, progress)
        sys.stdout.write((json.dumps(result, allow_nan=False) if as_json else render(result)) + "\n")
        sys.stdout.flush()
        return 0
    except AeglError as error:
        progress.finish()
        progress.message(f"aegl: error: {error}")
        if as_json:
            sys.stdout.write(json.dumps({"error": str(error), "exit_code": error.exit_code}) + "\n")
        return error.exit_code
    except KeyboardInterrupt:
        progress.message("aegl: interrupted")
        return 130
    finally:
        logger.removeHandler(handler)
