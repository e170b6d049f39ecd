"""`salt-zoo show`: every option of every part, with its documentation."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from salt_zoo.cli.show_part import describe_part, describe_run

pytestmark = pytest.mark.usefixtures("one_zoo")

#: Keys that say all by their name, in this field.
SELF_EXPLANATORY = {
    *("batch_size", "learning_rate", "sampler", "seed", "timestep_shift", "weight", "weight_decay"),
    *("betas", "decay", "gradient_checkpointing", "guidance_scale"),
    *("height", "width", "method", "backbone", "dataset", "metrics", "trackers"),
}

PLUGIN = '''
from typing import Annotated, Literal
from pydantic import Field
from salt_zoo import hookimpl
from salt_zoo.core.base.config import StrictModel

class Inner(StrictModel):
    """What the group is for."""
    #: How deep.
    depth: Annotated[int, Field(ge=1, lt=9)] = 3

class Config(StrictModel):
    #: Two lines
    #: of text | a bar.
    rate: float
    word: Literal["a", "b"] | None = None
    count: int = 2
    inner: Inner = Inner()

class Mine:
    """First paragraph,
    on two lines.

    Second paragraph.
    """
    Config = Config
    def __init__(self, config, zoo): pass

class Odd:
    Config = dict
    def __init__(self, config, zoo): pass

def bare(config, zoo): pass

@hookimpl
def register(zoo):
    zoo.methods.add("mine", Mine, "a [red]method[/red]", count=7)
    zoo.methods.add("bare", bare, "has no options")
    zoo.methods.add("odd", Odd, "its options are no model")
    zoo.methods.add("lost", "no_such_module:Thing", "cannot be loaded")
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


def parts(zoo) -> list[tuple[str, str]]:
    return [(registry.kind, entry.name) for registry in zoo.registries for entry in registry]


def test_every_part_is_shown_in_every_form(zoo, cli):
    for kind, name in parts(zoo):
        ended = cli("show", kind, name)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith(f"{kind} {name} (plugin ")
        shown = json.loads(cli("show", kind, name, "--json").out)
        assert (shown["kind"], shown["name"]) == (kind, name)
        assert all(f"{option['key']}: " in ended.out for option in shown["options"])
        page = cli("show", kind, name, "--markdown").out
        assert page.startswith(f"### {kind} `{name}`\n")
        assert all(f"\n| `{option['key']}` | " in page for option in shown["options"])


def test_options_are_documented(zoo):
    described = [describe_run()]
    described += [describe_part(registry, e.name) for registry in zoo.registries for e in registry]
    missing = {
        f"{part.kind} {part.name}: {option.key}"
        for part in described
        for option in part.options
        if not option.text and option.key.rpartition(".")[2] not in SELF_EXPLANATORY
    }
    assert not missing


def test_the_short_form_of_steps_is_shown_and_true(zoo, cli):
    for name in ("dmd", "sc-dmd", "cda", "consistency"):
        (text,) = (o.text for o in describe_part(zoo.methods, name).options
                   if o.key in ("steps", "rollout.steps"))  # fmt: skip
        assert text.endswith("`steps: 8` is `{8: 1.0}`."), name
    assert zoo.methods.configure("dmd", {"steps": 8}, "test").steps == {8: 1.0}


def test_json_is_what_a_registration_says(cli):
    shown = json.loads(cli("show", "method", "sc-dmd", "--json").out)
    assert shown["plugin"] == "dmd" and shown["summary"] and shown["about"]
    options = {option["key"]: option for option in shown["options"]}
    assert options["steps"]["default"] == 8
    assert options["objectives"]["default"] == {"distribution-matching": {}, "self-consistency": {}}
    assert options["fake_score.updates"] == {
        "key": "fake_score.updates",
        "type": "whole number",
        "range": ">= 1, <= 10000",
        "default": 5,
        "required": False,
        "is_group": False,
        "text": "Its updates for each update of the student (5: DMD2, arXiv 2405.14867, "
        "section 4.2).",
    }
    assert options["order"]["type"] == "one of fake-score-first | student-first"


def test_the_keys_of_a_run(cli):
    ended = cli("show", "run")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("run\n") and "\nmethod: group, required\n" in ended.out
    assert cli("show", "run", "--markdown").out.startswith("### run\n")
    assert "\ntraining.optimizers.NAME.betas: list of 2 numbers, each >= 0, < 1" in ended.out


def test_what_a_person_sees(plugin, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli("show", "method", "mine", "-p", plugin).out == textwrap.dedent(
        f"""\
        method mine (plugin {plugin})
        a [red]method[/red]

        First paragraph, on two lines.

        rate: number, required
            Two lines of text | a bar.
        word: one of a | b or null, default null
        count: whole number, default 7
        inner: group
            What the group is for.
        inner.depth: whole number, >= 1, < 9, default 3
            How deep.
        """
    )
    assert cli("show", "methods", "bare", "-p", plugin).out.endswith("\nIt has no options.\n")


def test_markdown(plugin, cli):
    assert cli("show", "method", "mine", "-p", plugin, "--markdown").out == textwrap.dedent(
        f"""\
        ### method `mine`

        a [red]method[/red] (plugin `{plugin}`)

        First paragraph, on two lines.

        | key | type | range | default | meaning |
        | --- | --- | --- | --- | --- |
        | `rate` | number |  | required | Two lines of text \\| a bar. |
        | `word` | one of a \\| b or null |  | `null` |  |
        | `count` | whole number |  | `7` |  |
        | `inner` | group |  |  | What the group is for. |
        | `inner.depth` | whole number | >= 1, < 9 | `3` | How deep. |
        """
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("methd", "dmd"), "unknown kind 'methd'; did you mean 'method'?"),
        (("method", "dmdd"), "unknown method 'dmdd'; did you mean 'dmd'"),
        (("memory",), "show memory: name one of the memories: block-relative, ema-sink, full"),
        (("run", "dmd"), "without a name"),
        (("method", "odd"), "method 'odd' of plugin"),
        (("method", "lost"), "no_such_module:Thing cannot be loaded (ModuleNotFoundError"),
    ],
)
def test_mistakes(arguments, message, plugin, cli):
    ended = cli("show", *arguments, "-p", plugin)
    assert (ended.code, ended.out) == (2, "")
    assert ended.error.startswith("error: ") and message in ended.error


def test_torch_is_not_imported_for_a_part_without_it(plugin, shell):
    call = "import sys; from salt_zoo.cli import main; main(sys.argv[1:])"
    code = f"{call}; print('torch' in sys.modules)"
    ended = shell("-c", code, "show", "method", "bare", "-p", plugin)
    assert (ended.code, ended.err) == (0, "") and ended.out.endswith("\nFalse\n")


def test_a_metric_says_how_its_scores_are_read(zoo, cli):
    shown = {
        "digits-fd": "direction: lower (lower is better); kind: quality",
        "digits-sharpness": "direction: target (closest to 1 is best); kind: description",
        "semigroup-defect": "direction: lower (lower is better); kind: diagnostic",
        "saturation": "direction: none (no direction); kind: description",
    }
    for name, line in shown.items():
        assert line in cli("show", "metric", name).out.splitlines(), name
    for entry in zoo.metrics:
        assert describe_part(zoo.metrics, entry.name).reading.startswith("direction: ")
    assert describe_part(zoo.methods, "dmd").reading == ""
