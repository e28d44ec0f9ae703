"""What the documents say is true of the tree: links, commands, reason codes, settings and examples."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.problems import TITLES
from shipmate.settings import parse_targets, read_targets
from tools.targets_schema import SCHEMA, targets_schema

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
OPERATING = ROOT / "docs" / "operating.md"
NAMED_BY_KUBERNETES = {"Failed"}  # a pod's phase
GIVES_A_REASON = {
    "Ignored",
    "_ignored",
    "Rejected",
    "RejectedError",
    "Idle",
    "Waiting",
    "Skipped",
    "Failed",
    "RolloutFailed",
}
REASON = re.compile(r"[A-Z][a-z0-9]+([A-Z][a-z0-9]+)*")


def strings(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def reasons_of(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    if name in GIVES_A_REASON:
        given += call.args[:2]
    for value in given:
        if isinstance(value, ast.JoinedStr) and ast.unparse(value) == "f'Pod{pod.reason}'":
            yield "PodEvicted"  # its section speaks for all of Kubernetes' words
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and REASON.fullmatch(value.value):
            yield value.value


def reasons_in_code() -> set[str]:
    calls = (
        node
        for source in (ROOT / "shipmate").rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Call)
    )
    return {reason for call in calls for reason in reasons_of(call)} - NAMED_BY_KUBERNETES


def sections(document: Path) -> set[str]:
    return set(re.findall(r"^### `(\w+)`$", document.read_text(), re.MULTILINE))


def rows(document: Path) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)`", document.read_text(), re.MULTILINE))


def test_the_code_gives_reasons() -> None:
    assert {"GateFailed", "OwnPush", "UpToDate", "Stale", "CrashLoop", "UnsafeFileName"} <= reasons_in_code()


def test_every_reason_code_has_a_section_in_the_operating_guide() -> None:
    assert reasons_in_code() - sections(OPERATING) == set()


def test_the_operating_guide_explains_no_reason_code_that_is_gone() -> None:
    assert sections(OPERATING) - reasons_in_code() == set()


def test_every_problem_of_the_app_is_in_the_operating_guide() -> None:
    assert set(TITLES) - rows(OPERATING) == set()


def test_every_setting_is_in_the_operating_guide() -> None:
    read = {
        text
        for text in strings(ROOT / "shipmate" / "settings.py")
        if re.fullmatch(r"[A-Z]+_[A-Z_]+|AzureWebJobs\w+", text)
    }
    bound = {
        name
        for source in [ROOT / "function_app.py", *(ROOT / "functions").glob("*.py")]
        for text in strings(source)
        for name in re.findall(r"%(\w+)%", text)
    }
    assert read >= {"SHIPMATE_STORAGE", "SHIPMATE_TARGETS", "AzureWebJobsStorage"}
    assert (read | bound) - rows(OPERATING) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_and_modules_exist(document: Path) -> None:
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) - targets == set()
    ours = re.findall(r"python -m ((?:localcloud|tools|examples|bench|drill|tests|shipmate)[\w.]*)", text)
    assert [name for name in ours if not exists_as_program(name)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_those_of_the_environment(document: Path) -> None:
    """A block's commands can be copied: outside .venv there is no package of ours."""
    assert re.findall(r"^(?:\$ )?(?:python3?|pip|pytest|ruff) .*", document.read_text(), re.MULTILINE) == []


def exists_as_program(module: str) -> bool:
    place = ROOT / module.replace(".", "/")
    return place.with_suffix(".py").exists() or (place / "__main__.py").exists()


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_decision_names_what_is_bad_about_it() -> None:
    pages = sorted((ROOT / "docs" / "adr").glob("0*.md"))
    assert pages
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    for page in pages:
        assert "## Negative consequences\n- " in page.read_text(), page.name
        assert page.name in index


def test_make_help_lists_at_most_a_dozen_targets() -> None:
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = [line for line in help_text.splitlines() if line.startswith("  make ")]
    assert 8 <= len(lines) <= 12
    assert all(len(line.split(maxsplit=2)) == 3 for line in lines)


def test_make_help_says_how_long_a_drill_takes() -> None:
    said = re.search(r"^drill:.*about (\d+) minutes", (ROOT / "Makefile").read_text(), re.MULTILINE)
    row = r"^\| duration \| (\d+) s from the first event.*; (\d+) s before for the first releases \|$"
    measured = re.search(row, (ROOT / "docs" / "reliability.md").read_text(), re.MULTILINE)
    assert said is not None
    assert measured is not None
    before_and_after = 300  # setting up, telling old events again, judging
    seconds = int(measured[1]) + int(measured[2])
    assert seconds <= int(said[1]) * 60 <= seconds + before_and_after


def test_the_targets_schema_is_up_to_date() -> None:
    assert SCHEMA.read_text() == targets_schema(), "run: .venv/bin/python -m tools.targets_schema"


def keys_of(schema: dict[str, Any], section: str = "Target", above: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each key of an entry of the targets file, `gate.max_wrong` for instance, with its schema."""
    for name, field in schema["$defs"][section]["properties"].items():
        if "$ref" in field:
            yield from keys_of(schema, field["$ref"].rpartition("/")[2], f"{above}{name}.")
        else:
            yield above + name, field


def test_every_key_of_the_targets_file_is_described_where_an_editor_shows_it() -> None:
    schema = json.loads(SCHEMA.read_text())
    keys = [*keys_of(schema), *keys_of(schema, "TargetsFile")]
    assert len(keys) > 20
    assert [key for key, field in keys if not field.get("description")] == []


def test_the_keys_of_the_targets_file_are_those_of_the_operating_guide() -> None:
    table = OPERATING.read_text().partition("\n## The targets file\n")[2].partition("\n## ")[0]
    written: list[str] = []
    for row in re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", row)
        section = first.rpartition(".")[0]
        written += [first, *(section + other if other.startswith(".") else other for other in others)]
    assert sorted(written) == sorted(key for key, _ in keys_of(json.loads(SCHEMA.read_text())))


def yaml_blocks(document: Path) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_targets_file_fits_reader_and_schema() -> None:
    example = ROOT / "examples" / "targets.yaml"
    assert set(read_targets(example)) == {"vision"}
    jsonschema.validate(yaml.safe_load(example.read_text()), json.loads(SCHEMA.read_text()))


def test_the_readmes_targets_file_fits_reader_and_schema() -> None:
    blocks = [block for block in yaml_blocks(ROOT / "README.md") if "targets:" in block]
    assert len(blocks) == 1
    assert parse_targets(blocks[0].encode(), "README.md")
    jsonschema.validate(yaml.safe_load(blocks[0]), json.loads(SCHEMA.read_text()))


def test_every_test_that_a_document_names_is_there() -> None:
    named = {name for document in DOCUMENTS for name in re.findall(r"`(test_\w+)`", document.read_text())}
    sources = [source.read_text() for source in (ROOT / "tests").rglob("*.py")]
    there = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    assert named, "docs/semantics.md names the tests that hold its promises"
    assert named <= there, f"renamed or gone: {sorted(named - there)}"


def test_every_promise_says_why_and_what_holds_it() -> None:
    text = (ROOT / "docs" / "semantics.md").read_text()
    promises, not_promised, _ = text.partition("\n## Not promised\n")
    sections = [section.partition("\n") for section in promises.split("\n## ")[1:]]
    assert not_promised
    assert len(sections) > 10
    assert [title for title, _, words in sections if not re.search(r"^\*Why:\* \w", words, re.MULTILINE)] == []
    assert [title for title, _, words in sections if not re.search(r"^\*Held by:\* \S", words, re.MULTILINE)] == []
