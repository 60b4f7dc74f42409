"""Images per second and memory of training at 800x1344 with 1203 classes, FBS-AEGL, in every precision and layout."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from section import Section, TrainingStep, open_section

STEPS = 8


def measure(section: Section, setting: str, batch: int, prepare: Callable[[], Callable[[], Any]]) -> None:
    """Time a step and keep the row."""
    with section.attempt(setting):
        section.reset_peak()
        step = prepare()
        times = section.seconds(step, 1 if section.smoke else STEPS, warmup=0 if section.smoke else 3)
        middle = statistics.median(times)
        section.add(setting, images_per_s=round(batch / middle, 2), ms=round(1000 * middle, 1), gib=section.peak_gib())


def main() -> None:
    """Run the section, the most telling rows first: a limit may cut it short."""
    section = open_section(__doc__)
    batches = (1,) if section.smoke else (8, 2, 16)
    first = batches[0]
    measure(section, f"r50 bf16, batch {first}", first, lambda: TrainingStep(section, batch=first))
    measure(section, f"swin_t bf16, batch {first}", first, lambda: TrainingStep(section, "swin_t", batch=first))
    measure(section, f"r50 fp32, batch {first}", first, lambda: TrainingStep(section, batch=first, amp="none"))
    setting = f"r50 bf16 channels_last, batch {first}"
    measure(section, setting, first, lambda: TrainingStep(section, batch=first, channels_last=True))
    for model in ("r50", "swin_t"):
        for batch in batches[1:]:
            setting = f"{model} bf16, batch {batch}"
            measure(section, setting, batch, lambda m=model, b=batch: TrainingStep(section, m, batch=b))
    setting = f"r50 bf16 compiled backbone and neck, batch {first}"
    measure(section, setting, first, lambda: TrainingStep(section, batch=first, compiled=True))


if __name__ == "__main__":
    main()
