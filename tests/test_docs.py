"""Pages are true where that can be tested: links, options of commands, and what architecture.md names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_readme import click_commands

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md")), *sorted((ROOT / "docs").glob("*.md"))]


def outside_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What a link into the page may end in: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", outside_blocks(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_heading_that_a_page_links_is_there(page: Path) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        target = page.parent / link if link else page
        assert "://" in link or target.exists(), link
        assert not anchor or "://" in link or anchor in anchors(target), f"{link}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_has_the_options_that_it_shows(page: Path) -> None:
    known = dict(click_commands())
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if not (command := re.match(r"\s*(?:\.venv/bin/)?lumbar ([^#]*)", line)):
            continue
        words = command[1].split()
        name = max((name for name in known if f"{command[1]} ".startswith(f"{name} ")), key=len, default="")
        assert name and not hasattr(known[name], "commands"), line
        options = {"--help"} | {option for parameter in known[name].params for option in parameter.opts}
        options |= {option for parameter in known[name].params for option in parameter.secondary_opts}
        assert {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)} <= options, line


def test_the_way_from_path_to_submission_has_at_most_ten_hops_and_each_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    hops = re.findall(r"^\| \d+ \| \[([\w/.]+)\]\([^)]*\) `([\w.]+)`", text, re.MULTILINE)
    assert 5 <= len(hops) <= 10
    for file, name in hops:
        code = (ROOT / file).read_text(encoding="utf-8")
        for part in name.split("."):
            assert re.search(rf"^\s*(def|class) {part}\b", code, re.MULTILINE), f"{name} is not in {file}"


def test_no_code_cites_a_file_that_a_user_does_not_have() -> None:
    for package in ("data_prep", "detector", "classifier", "pipeline", "benchmarks", "tests"):
        for path in (ROOT / package).rglob("*.py"):
            for name in re.findall(r"\b[\w/-]+\.md\b", path.read_text(encoding="utf-8")):
                if name.startswith("docs/") or name.split(".")[0].isupper():
                    assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} cites {name}"
