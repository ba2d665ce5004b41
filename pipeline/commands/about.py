"""``doctor`` and ``info``: what is installed and works here, and what the program can do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.commands import console
from pipeline.commands.options import AsJson


def doctor(
    self_test: Annotated[
        bool, typer.Option(help="Grade one synthetic patient and take the time; seconds.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check this installation: libraries, weights, backends, and a timed self-test.

    Exit code 0 if studies can be graded here, 1 if not.
    """
    from pipeline.doctor import examine

    with console.status("examining"):
        found = examine(self_test=self_test)
    if as_json:
        console.print_json(found)
    else:
        _print_examination(found)
    if not found["can_grade"]:
        raise typer.Exit(console.NOTHING_DONE)


def info(context: typer.Context, as_json: AsJson = False) -> None:
    """What the program can do: commands, models, formats, reasons, flags; for people and for programs."""
    from pipeline.registry import registry

    found = registry(context.find_root().command)
    if as_json:
        console.print_json(found)
        return
    console.say(f"lumbar {found['version']} · {found['licence']} · {found['warning']}")
    for title in ("commands", "formats", "flags", "reasons", "extras"):
        rows = [{"": item["name"], "what": item["what"]} for item in found[title]]
        console.print_rows(title, rows)


def _print_examination(found: dict[str, Any]) -> None:
    console.say(f"lumbar {found['version']} on Python {found['python']}, {found['system']}")
    packages = (f"{name} {version or 'missing'}" for name, version in found["packages"].items())
    console.say(f"packages  {', '.join(packages)}")
    for name, extra in found["extras"].items():
        state = "installed" if not extra["missing"] else f"lacks {', '.join(extra['missing'])}"
        console.say(f"extra     {name}: {state} ({extra['does']})")
    for folder, model in found["models"].items():
        console.say(f"weights   {folder}: {model['state']}")
    for backend in found["backends"].items():
        console.say(f"backend   {backend[0]}: {backend[1]}")
    console.say(f"devices   {', '.join(found['devices'])}")
    if found["self_test"] is not None:
        test = found["self_test"]
        console.say(
            f"self-test {test['state']}: models in {test['load_s']:.1f} s, a study in {test['study_s']:.2f} s"
            if test["state"] == "passed"
            else f"self-test {test['state']}"
        )
    console.say("studies can be graded here" if found["can_grade"] else "studies cannot be graded here")
