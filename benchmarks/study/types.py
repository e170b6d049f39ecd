"""The types of a study's fields, for `--set`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.study.entries.arm_evaluation import ArmEvaluation
from benchmarks.study.entries.config import ArmSeeds, StudyConfig
from benchmarks.study.schema import with_base
from salt_zoo.config.field_types import run_types
from salt_zoo.config.overrides import Types
from salt_zoo.core.base.annotations import annotations_at
from salt_zoo.plugin.manager import Zoo


def types_of_study(zoo: Zoo) -> Types:
    """Of a study's file: its base and its arms are runs, whose parts bring fields of their own."""

    def types(content: Mapping[str, Any], path: Sequence[int | str]) -> Sequence[Any]:
        base = content.get("base")
        base = base if isinstance(base, dict) else {}
        if path[0] == "base" and len(path) > 1:
            return run_types(zoo, base, path[1:])
        if path[0] == "arms" and len(path) > 2:
            if path[2] == "evaluation":
                return annotations_at(ArmEvaluation, path[3:])
            if path[2] == "seeds":
                return annotations_at(ArmSeeds, path[2:])
            return run_types(zoo, with_base(base, content["arms"][path[1]]), path[2:])
        return annotations_at(StudyConfig, path)

    return types
