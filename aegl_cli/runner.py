"""Runs one verb: arguments in, result out as text or JSON, errors as one message and an exit code."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from aegl.config.verbs import refuse_unread
from aegl.errors import AeglError
from aegl.progress import Progress, SilentProgress
from aegl_cli.keyvalue import parse
from aegl_cli.progress import ConsoleProgress, LogToProgress
from aegl_cli.terminal import showable

Task = Callable[[dict[str, str], Progress], dict[str, Any]]
Render = Callable[[dict[str, Any]], str]

NOT_PASSED = 1
"""Exit code of a verb that found something wrong: data with errors, a file that does not give the model's answers."""
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + the number of SIGINT."""


def run(
    verb: str,
    words: Sequence[str],
    task: Task,
    render: Render,
    *,
    positional: str | None = None,
    many: bool = False,
    passed: Callable[[dict[str, Any]], bool] = lambda result: True,
) -> int:
    """Run a task and show what it gives.

    Of several processes that run a verb together (torchrun), the main one shows progress and result; the others only
    what went wrong with them.

    Args:
        verb: its name.
        words: arguments of the verb; ``--json`` among them gives the result as JSON, ``--quiet`` leaves out progress.
        task: configuration keys and progress to a JSON-able result.
        render: the result as text.
        positional: key that a bare word stands for.
        many: whether further bare words add to it.
        passed: whether a result is the one hoped for, where a verb is a test of something.

    Returns:
        The exit code: 0, 1 for a result that did not pass, that of the error, or 130 when interrupted.
    """
    rank = _rank()
    console = ConsoleProgress()
    as_json, is_quiet = "--json" in words, "--quiet" in words
    try:
        overrides = parse(words, positional=positional, many=many)
        refuse_unread(verb, overrides)
        handler = LogToProgress(console, logging.WARNING if is_quiet else logging.INFO)
        with contextlib.ExitStack() as stack:
            stack.callback(console.finish)
            stack.enter_context(_library_logs_to(logging.NullHandler() if rank else handler))
            stack.enter_context(contextlib.redirect_stderr(console.beside()))
            # Standard output is for the result: what other packages print is progress, and goes where that goes.
            aside = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8")) if is_quiet else sys.stderr
            stack.enter_context(contextlib.redirect_stdout(aside))
            result = task(overrides, SilentProgress() if rank or is_quiet else console)
        if not rank:
            _write(json.dumps(result, allow_nan=False) if as_json else render(result))
        return 0 if passed(result) else NOT_PASSED
    except AeglError as error:
        console.failure(str(error), process=rank)
        if as_json and not rank:
            _write(json.dumps({"error": str(error), "exit_code": error.exit_code}))
        return error.exit_code
    except KeyboardInterrupt:
        console.message("aegl: interrupted")
        return INTERRUPTED


def _rank() -> int:
    """Number of this process among those that torchrun started together; 0 where it is alone."""
    return int(os.environ.get("RANK", "0")) if os.environ.get("WORLD_SIZE", "1") != "1" else 0


@contextlib.contextmanager
def _library_logs_to(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger("aegl")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _write(text: str) -> None:
    sys.stdout.write(showable(text, sys.stdout) + "\n")
    sys.stdout.flush()
