"""Pages are true where that can be tested: what they link is there, and what architecture.md names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert "://" in link or (page.parent / link).exists(), link


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
