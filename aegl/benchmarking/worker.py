"""The process that measures one row: JSON lines in and out.

It gets the :class:`aegl.benchmarking.engines.Spec`, warms up and says ``ready`` (or ``error``); then it gets numbers of
runs and gives the seconds of each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, TextIO

from aegl.benchmarking.engines import Spec, example_images, make_engine, peak_of_process, used_on_gpu
from aegl.errors import AeglError

WARM_UP_RUNS = 3
"""The first compiles, loads kernels and grows the memory pools; the next show what it left undone."""


def main(requests: TextIO, answers: TextIO) -> None:
    """Serve until ``requests`` ends."""

    def answer(**content: Any) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    spec = Spec(**json.loads(requests.readline()))
    try:
        before = used_on_gpu(spec.device)
        detect, images = make_engine(spec), example_images(spec)
        started = time.perf_counter()
        detect(images)
        first = time.perf_counter() - started
        for _ in range(WARM_UP_RUNS - 1):
            detect(images)
        after = used_on_gpu(spec.device)
    except AeglError as error:
        answer(error=str(error))
        return
    except Exception as error:  # whatever a compiler or a driver raises is why this row is missing
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        answer(error=f"{type(error).__name__}: {lines[0].strip()}")
        return
    answer(
        ready=True,
        first_call_s=first,
        process_mb=peak_of_process(),
        gpu_mb=None if after is None or before is None else after - before,
    )
    for line in requests:
        seconds = []
        for _ in range(int(line)):
            started = time.perf_counter()
            detect(images)
            seconds.append(time.perf_counter() - started)
        answer(seconds=seconds)


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is not an answer
    main(sys.stdin, channel)
