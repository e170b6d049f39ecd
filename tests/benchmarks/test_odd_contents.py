"""A study or a run with anything in any place of its file is read, or refused in words."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.evaluate.broken_metrics import without_broken
from benchmarks.runner.arms import check_metrics
from benchmarks.study.hypotheses import check_hypotheses, measured_hypotheses
from benchmarks.study.schema import load_study, runs_of, select_arms
from salt_zoo.config.run import resolve
from salt_zoo.core.base.errors import ZooError

STUDY: dict[str, Any] = {
    "name": "tiny",
    "title": "Tiny",
    "base": {
        "backbone": {"name": "self-forcing", "size": "digits"},
        "dataset": "digits",
        "training": {"updates": 2, "batch_size": 2},
    },
    "arms": {
        "a": {
            "method": {"name": "dmd", "steps": 4},
            "seeds": [3, 4],
            "evaluation": {"sampler": "ode", "times": {1: [1.0]}},
        },
        "b": {"method": "consistency", "backbone": {"memory": "window"}},
    },
    "seeds": [0, 1],
    "match": "compute",
    "budget_of": "a",
    "evaluation": {
        "prompts": 4,
        "nfe": [1, 2],
        "samplers": ["sde"],
        "metrics": ["digits-motion", {"name": "digits-rigidity", "label": "x"}],
        "teacher": {"steps": 2},
        "long": {"lengths": [1, 2], "nfe": [1], "metrics": ["digits-motion"]},
    },
    "hypotheses": [
        {"name": "h", "a": "a", "b": "b", "metric": "digits-motion", "nfe": 1},
        {"a": "a", "b": "initial-naive", "metric": "digits-motion", "nfe": 1, "length": 2},
    ],
    "claims": [{"claim": "c", "source": "s", "hypotheses": ["h", 1]}],
    "tuning": {"split": "validation", "settings": {"a": 1}},
    "primary_metric": "digits-motion",
}
RUN: dict[str, Any] = {
    "method": {
        "name": "sc-dmd",
        "steps": {8: 0.5, 4: 0.5},
        "fake_score": {"updates": 1},
        "objectives": {"distribution-matching": {"guidance_scale": 1.5}},
    },
    "backbone": {
        "name": "self-forcing",
        "size": "digits",
        "memory": {"name": "window", "frames": 9, "sink": 3},
        "teacher": {"size": "digits"},
        "initial": ["a", "b"],
    },
    "dataset": {"name": "digits"},
    "seed": 3,
    "training": {
        "updates": 3,
        "optimizers": {"student": {"name": "adamw", "betas": [0, 0.9]}},
        "ema": {"decay": 0.9, "start": 1},
        "lora": {"student": {"rank": 2}},
        "trackers": ["tensorboard"],
    },
    "quality": {"every": 1, "metrics": ["digits-motion", {"name": "digits-rigidity"}]},
    "execution": {"offload": ["frozen"], "micro_batch": 1},
}


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for key, value in inner:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += places(value, (*path, key))
    return found


ODD = st.sampled_from(
    [None, [], {}, "", "x", 0, -1, True, 2**70, 1.5, float("nan"), float("inf"), [None], [[]],
     {"name": None}, {"name": []}, {"": 1}, {1.5: 2}, "1_0", "\0", "\ud800", "a" * 3000],
)  # fmt: skip


def put(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(content)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = copy.deepcopy(value)
    return changed


def in_words(error: ZooError) -> bool:
    return str(error).strip() != "" and "object has no attribute" not in str(error)


@settings(max_examples=200)
@given(st.sampled_from(places(STUDY)), ODD)
@example(("arms", "a", "method"), [])
@example(("arms", "a", "method"), 0)
@example(("arms", "a", "evaluation"), None)
def test_a_study(zoo, path, value):
    try:
        study = load_study(put(STUDY, path, value), "f")
        check_metrics(study, zoo, "f")
        check_hypotheses(study, zoo, "f")
        measured_hypotheses(study, zoo)
        without_broken(study, zoo, "f")
        select_arms(study, ["a"], "f")
        runs_of(study, zoo, "f")
    except ZooError as error:
        assert in_words(error)


@settings(max_examples=200)
@given(st.sampled_from(places(RUN)), ODD)
def test_a_run(zoo, path, value):
    try:
        resolve(put(RUN, path, value), zoo, "f")
    except ZooError as error:
        assert in_words(error)


def test_they_are_legal_themselves(zoo):
    study = load_study(STUDY, "f")
    check_hypotheses(study, zoo, "f")
    runs_of(study, zoo, "f")
    resolve(RUN, zoo, "f")
