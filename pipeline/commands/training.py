"""``lumbar train``: from options to a training, and every failure in one sentence."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_prep.problems import LumbarError
from pipeline.commands import console
from pipeline.training.plan import Preset, load_plan
from pipeline.training.ranks import Ranks
from pipeline.training.settings import TrainSettings


def train_from_command_line(
    data: Path,
    run: Path,
    *,
    preset: str,
    changes: Path | None,
    given: Mapping[str, Any],
    device: str,
    processes: int,
    workers: int,
    cache: Path | None,
    pretrained: Path | None,
) -> dict[str, Any] | None:
    """Train; a failure says why and ends the program with exit code 1.

    Returns:
        The figures of ``report.json``; None in torchrun's processes other than the first.
    """
    ranks = Ranks.taken_from_environment()
    # Only now: these bring ultralytics, which reads torchrun's variables when it is imported.
    from classifier.learn.devices import resolve_device
    from pipeline.training.run import train_all

    started = time.monotonic()

    def say(text: str) -> None:
        console.err.print(f"{(time.monotonic() - started) / 60:6.1f} min  {text}")

    try:
        resolve_device(device)
        plan = load_plan(Preset(preset), changes, given)
        settings = TrainSettings(
            data,
            run,
            plan,
            cache=cache,
            device=device,
            processes=processes,
            workers=workers,
            pretrained=pretrained,
        )
        return train_all(settings, say, ranks)
    except LumbarError:
        raise
    except (ValueError, TypeError) as error:  # of the configuration
        console.fail(str(error))
