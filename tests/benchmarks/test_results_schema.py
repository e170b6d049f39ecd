"""The JSON Schema of results.json is that of the types, and committed reports follow both."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.stats.model.json_schema import FILE, json_schema
from benchmarks.stats.model.schema import SCHEMA
from benchmarks.stats.results_file import read_results

REPORTS = sorted(
    path.parent for path in (Path(__file__).parents[2] / "reports").glob("*/results.json")
)


def test_the_json_schema_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == json_schema(), (
        "run python -m benchmarks.stats.model.json_schema"
    )


def test_there_are_reports() -> None:
    assert {"quick", "null", "digits", "self_forcing", "cda"} <= {path.name for path in REPORTS}


@pytest.mark.parametrize("folder", REPORTS, ids=lambda path: path.name)
def test_committed_reports_are_of_this_schema(folder: Path) -> None:
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert content["schema"] == SCHEMA
    assert read_results(folder).to_json() == content


def test_every_key_is_in_the_json_schema() -> None:
    """A reader without Python sees the same keys, all of which a file has."""
    schema = json.loads(FILE.read_text(encoding="utf-8"))
    content = json.loads((REPORTS[0] / "results.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]) == set(schema["required"]) == set(content)
    row = schema["$defs"]["ScoreRow"]
    assert set(row["properties"]) == set(row["required"]) == set(content["rows"][0])
    assert "excludes zero" in row["properties"]["winner"]["description"]


def test_the_page_lists_every_key() -> None:
    page = (Path(__file__).parents[2] / "benchmarks" / "README.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"The keys of `results.json`:\n\n((?:\|.*\n)+)", page)
    listed = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()))
    schema = json.loads(FILE.read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(schema["properties"])
