"""The command line ``lumbar``: thin, and importing what a command needs only when it runs.

Exit codes: 0 all done; 3 done, but a file, series or study was rejected; 2 usage; 1 nothing done.
Progress and what was rejected go to stderr, results to stdout. ``--quiet`` and ``--verbose`` work with every
command, before or after its name.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import typer
import typer.core

from data_prep.base.workers import spare_threads
from data_prep.names import input_label
from data_prep.problems import LumbarError
from pipeline.commands import about, classifier, console, data, detector, grading, learning, serve
from pipeline.commands.options import ReportCommand
from pipeline.extras import what_is_missing
from pipeline.quiet import failure_in_words, say_failures_without_values, silence_libraries

_QUOTED_PATH = re.compile(r"((?:File|Path|Directory) )?'([^']*/)?([^'/]*)/?'")


def _labelled(quoted: re.Match[str]) -> str:
    what, folders, name = quoted.groups(default="")
    return f"{what}'{input_label(name)}'" if what or folders else quoted[0]


class LumbarGroup(typer.core.TyperGroup):
    """Takes ``--quiet`` and ``--verbose`` wherever they stand, so that every command has them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        given = {"--quiet", "--verbose"} & set(args[:end])
        verbosity = console.Verbosity.NORMAL
        if "--verbose" in given:
            verbosity = console.Verbosity.VERBOSE
        if "--quiet" in given:
            verbosity = console.Verbosity.QUIET
        ctx.obj = verbosity
        kept = [item for item in args[:end] if item not in given]
        return super().parse_args(ctx, kept + args[end:])

    def invoke(self, ctx: Any) -> Any:
        """Say in words what is refused; a wrong path by its last part: folders above may name a patient."""
        silence_libraries()
        before = console.verbosity()
        console.set_verbosity(ctx.obj)
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _QUOTED_PATH.sub(_labelled, error.message)
            raise
        except LumbarError as error:
            console.fail_because(error)
        finally:
            console.set_verbosity(before)


app = typer.Typer(
    name="lumbar",
    cls=LumbarGroup,
    help="Finds the five lumbar levels on MRI and grades stenosis at each: 25 targets per study.\n\n"
    "Every command takes --quiet (errors and rejections alone) and --verbose (what was found, by which "
    "models). Begin with: lumbar predict INPUT -o OUT",
    epilog="Exit codes: 0 done · 3 done, but something was rejected · 2 usage · 1 nothing done. "
    "Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
_GRADE, _LEARN, _DATA, _ABOUT = "Grade images", "Train and judge", "Data sets", "This installation"
_COMMANDS = (
    (_GRADE, "predict", grading.predict, "lumbar predict train_images/100206310 -o graded"),
    (_GRADE, "demo", grading.demo, "lumbar demo -o demo-output"),
    (_GRADE, "show", grading.show, "lumbar show train_images/100206310 -o pictures --truth beside"),
    (_GRADE, "app", grading.local_app, "lumbar app"),
    (
        _GRADE,
        "serve",
        serve.serve,
        "lumbar serve /var/spool/lumbar --to PACS@127.0.0.1:4242",
    ),
    (
        _LEARN,
        "train",
        learning.train,
        "lumbar train rsna-2024-lumbar -o runs/rsna --preset full --device cuda",
    ),
    (_LEARN, "export", learning.export, "lumbar export runs/rsna -o runs/rsna/onnx"),
    (_LEARN, "score", learning.score, "lumbar score submission.csv train.csv --json"),
    (_DATA, "phantom", data.phantom, "lumbar phantom synthetic --studies 100 --seed 0 --jobs 2"),
    (_DATA, "phantom-check", data.phantom_check, "lumbar phantom-check --studies 200"),
    (_ABOUT, "doctor", about.doctor, "lumbar doctor --json"),
    (_ABOUT, "info", about.info, "lumbar info --json"),
    (_DATA, "check", data.check, "lumbar check rsna-2024-lumbar --no-images"),
)
for panel, name, command, example in _COMMANDS:
    kind = ReportCommand if name in ("predict", "serve") else None
    app.command(name, cls=kind, epilog=f"Example: {example}", rich_help_panel=panel)(command)
for group, name, panel in (
    (detector.app, "detector", _LEARN),
    (classifier.app, "classifier", _LEARN),
    (data.annotations_app, "annotations", _DATA),
):
    app.add_typer(group, name=name, rich_help_panel=panel)


def main() -> None:
    """Entry point of ``lumbar`` and ``python -m pipeline``."""
    spare_threads()
    say_failures_without_values()
    try:
        app(prog_name="lumbar")
    except ModuleNotFoundError as error:
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        missing = what_is_missing(error.name, command)
        if missing is None:
            raise
        console.err.print(missing)
        sys.exit(console.NOTHING_DONE)
    except OSError as error:  # a full disk, a folder that must not be written
        sys.exit(console.say_what_files_lack(error))
    except Exception as error:
        if os.environ.get("LUMBAR_TRACEBACK"):
            raise
        console.err.print(failure_in_words(type(error), error.__traceback__))
        sys.exit(console.NOTHING_DONE)
