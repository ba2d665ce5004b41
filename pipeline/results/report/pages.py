"""Pages for a browser, from the templates of the project.

Nothing is fetched: pictures, styles and script lie in the page, and a content security policy with the
hash of the script forbids everything else.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.results.words import NOT_A_DEVICE


def render(template: str, *, script: str, **values: Any) -> str:
    """Fill a template of the project; every value is escaped.

    Args:
        template: name in ``pipeline/results/report/templates``.
        script: name of the one script that the page may run.
        values: what the template asks for; a missing one is an error.
    """
    code = _text_of(script)
    # The policy allows this script by its hash, so it must come into the page as it is, unescaped.
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    return (
        _environment()
        .get_template(template)
        .render(
            script=Markup(code),
            script_hash=digest,
            style=Markup(_text_of("style.css")),
            not_a_device=NOT_A_DEVICE,
            **values,
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline.results.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@cache
def _text_of(name: str) -> str:
    return files("pipeline.results.report").joinpath("templates", name).read_text(encoding="utf-8")
