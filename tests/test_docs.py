"""What the documents say must be there: links lead somewhere, decisions have three parts, fragments a known name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".venv", "node_modules", ".git"}
PAGES = sorted(p for p in ROOT.rglob("*.md") if not SKIPPED & set(p.relative_to(ROOT).parts))
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
FRAGMENTS = sorted(p for p in (ROOT / "changelog.d").iterdir() if p.name != "README.md")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", DECISIONS, ids=name)
def test_a_decision_says_context_choice_and_price(page: Path) -> None:
    text = page.read_text()
    assert re.match(r"\d{3}-[a-z0-9-]+\.md$", page.name)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Choice", "What we gave up"]
    assert text.startswith(f"# {page.name[:3]} · ")


def test_decisions_are_numbered_without_gaps_or_repeats() -> None:
    assert [int(page.name[:3]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_changelog_fragments_are_named_by_topic_and_kind() -> None:
    shape = re.compile(r"[a-z0-9-]+\.(added|changed|fixed|removed|security)\.md")
    assert [page.name for page in FRAGMENTS if not shape.fullmatch(page.name)] == []


def test_the_readmes_two_commands_exist_and_can_be_run() -> None:
    readme = (ROOT / "README.md").read_text()
    for command in ("run-demo", "run-tests"):
        assert f"./{command}" in readme
        assert (ROOT / command).stat().st_mode & 0o111
