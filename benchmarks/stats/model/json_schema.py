"""`python -m benchmarks.stats.model.json_schema` writes results.schema.json, the JSON Schema of
results.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.stats.model.schema import Results

FILE = Path(__file__).with_name("results.schema.json")


def json_schema() -> str:
    """The content of results.schema.json."""
    schema = Results.model_json_schema(by_alias=True, mode="serialization")
    for part in (schema, *schema["$defs"].values()):
        for field in part.get("properties", {}).values():
            field.pop("title", None)  # the name once more
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_terse(schema)}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


def _terse(node: Any) -> Any:
    """Without what says nothing, and what only some versions of pydantic write."""
    if isinstance(node, list):
        return [_terse(part) for part in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _terse(value)
        for key, value in node.items()
        if not (key == "additionalProperties" and value is True)
        and not (key == "enum" and "const" in node)
    }


if __name__ == "__main__":
    FILE.write_text(json_schema(), encoding="utf-8")
