"""`python -m benchmarks.stats.json_schema` writes results.schema.json, the JSON Schema of
results.json."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.stats.schema import Results

FILE = Path(__file__).with_name("results.schema.json")


def json_schema() -> str:
    """The content of results.schema.json."""
    schema = Results.model_json_schema(by_alias=True, mode="serialization")
    for part in (schema, *schema["$defs"].values()):
        for field in part.get("properties", {}).values():
            field.pop("title", None)  # the name once more
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(json_schema(), encoding="utf-8")
