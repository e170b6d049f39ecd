"""An edit of code, of a package's data or of a named file makes again what depends on it."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

import salt_zoo.plugin.versions
from benchmarks.runner.jobs.results import read_job
from salt_zoo.plugin.manager import load_zoo
from tests.benchmarks.planned_jobs import SIZES, arm, do

METRIC = """
from salt_zoo import hookimpl
VALUE = 0.25
class Mine:
    direction, own_steps = "higher", None
    def __init__(self, config, zoo): pass
    def measure(self, videos):
        import torch
        return torch.full((len(videos.prompts),), VALUE)
    def reduce(self, rows): return float(rows.mean())
@hookimpl
def register(zoo): zoo.metrics.add("mine", Mine, "a constant")
"""

METHOD = """
from salt_zoo import hookimpl
from salt_zoo_dmd.method import DMD
class Mine(DMD):
    pass
@hookimpl
def register(zoo):
    zoo.methods.add("mine", Mine, "a method", objectives={"distribution-matching": {}})
"""


def test_an_edited_metric_measures_again(planned, done, trainings, tmp_path):
    plugin, changes = tmp_path / "mine.py", {"evaluation": {"metrics": ["mine", "digits-class"]}}
    values = []
    for source in (METRIC, METRIC.replace("0.25", "0.75")):
        plugin.write_text(source)
        zoo = load_zoo([SIZES, str(plugin)])
        job = do(arm(planned(changes, zoo)), zoo)
        values.append(float(read_job(job)[0][0].rows["mine"].mean()))
    assert values == [0.25, 0.75] and trainings == []


def test_a_declared_version_outlives_edits(planned, tmp_path):
    plugin, keys = tmp_path / "mine.py", []
    for version, comment in ((1, ""), (1, "# an edit"), (2, "")):
        declared = f"class Mine:\n    version = {version}"
        plugin.write_text(METRIC.replace("class Mine:", declared) + comment)
        zoo = load_zoo([SIZES, str(plugin)])
        job = arm(planned({"evaluation": {"metrics": ["mine"]}}, zoo))
        keys.append(job.cells[0].metrics["mine"].key)
    assert keys[0] == keys[1] != keys[2]


def metric_key(planned: Any, plugins: list[str], metric: Any = "mine") -> str:
    zoo = load_zoo([SIZES, *plugins])
    assert not zoo.broken
    job = arm(planned({"evaluation": {"metrics": [metric]}}, zoo))
    (plan,) = job.cells[0].metrics.values()
    return str(plan.key)


def test_data_of_a_package_measures_again(planned, tmp_path, monkeypatch):
    """Also under a declared version, which is about code."""
    package = tmp_path / "measured_package"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    metric = METRIC.replace("class Mine:", "class Mine:\n    version = 1")
    (package / "plugin.py").write_text(metric)
    monkeypatch.syspath_prepend(tmp_path)
    keys = [metric_key(planned, ["measured_package.plugin"])]
    judge = package / "weights" / "judge.bin"
    for content in ("one", "another"):
        judge.write_text(content)
        keys.append(metric_key(planned, ["measured_package.plugin"]))
    assert len(set(keys)) == 3
    (package / "README.md").write_text("a page")
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "plugin.cpython-399.pyc").write_text("code")
    assert metric_key(planned, ["measured_package.plugin"]) == keys[-1]
    judge.unlink()
    assert metric_key(planned, ["measured_package.plugin"]) == keys[0]


def test_another_judge_measures_again_and_trains_nothing(planned, zoo, monkeypatch):
    """The shipped metrics' data: the judge and what they compare with."""
    changes = {"evaluation": {"metrics": ["digits-class", "motion-magnitude"]}}

    def keys() -> tuple[Path, dict[str, str]]:
        job = arm(planned(changes))
        return job.folder, {label: plan.key for label, plan in job.cells[0].metrics.items()}

    folder, before = keys()
    real, judged = salt_zoo.plugin.versions.known_digest, []

    def other(path: Path) -> str:
        if path.parent.name == "judge":
            judged.append(path.name)
            return "other"
        return real(path)

    monkeypatch.setattr(salt_zoo.plugin.versions, "known_digest", other)
    same, after = keys()
    assert {"judge.safetensors", "reference.safetensors"} <= set(judged)
    assert same == folder and before["motion-magnitude"] == after["motion-magnitude"]
    assert before["digits-class"] != after["digits-class"]


FILED = """
from pathlib import Path
from salt_zoo import hookimpl
from salt_zoo.core.base.config import StrictModel
class Options(StrictModel):
    weights: Path | None = None
    tag: str = "laion.tag"
class Mine:
    direction, own_steps, version, Config = "higher", None, 1, Options
    def __init__(self, config, zoo): pass
    def measure(self, videos): return None
    def reduce(self, rows): return float(rows.mean())
@hookimpl
def register(zoo): zoo.metrics.add("mine", Mine, "with weights")
"""


@pytest.mark.parametrize("option", ["weights", "tag"])
def test_a_file_that_an_option_names_measures_again(planned, tmp_path, option):
    """By its content; a text that may be a tag or a file is one where there is such a file."""
    plugin, weights = tmp_path / "mine.py", tmp_path / "weights.bin"
    plugin.write_text(FILED)
    metric, keys = {"name": "mine", option: str(weights)}, []
    for content in (None, "one", "another"):
        if content:
            weights.write_text(content)
        keys.append(metric_key(planned, [str(plugin)], metric))
    assert len(set(keys)) == 3
    weights.unlink()
    assert metric_key(planned, [str(plugin)], metric) == keys[0]


def test_a_folder_that_an_option_names_is_all_of_its_files(planned, tmp_path):
    plugin, folder = tmp_path / "mine.py", tmp_path / "weights"
    plugin.write_text(FILED)
    metric, keys = {"name": "mine", "weights": str(folder)}, []
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "part.bin").write_text(name)
        keys.append(metric_key(planned, [str(plugin)], metric))
    assert len(set(keys)) == 2


def test_a_file_that_a_method_names_trains_again(planned, tmp_path):
    plugin, reward, folders = tmp_path / "mine.py", tmp_path / "reward.bin", []
    plugin.write_text(
        textwrap.dedent(
            """
            from pathlib import Path
            from salt_zoo import hookimpl
            from salt_zoo_dmd.method import DMD
            class Options(DMD.Config):
                reward: Path
            class Mine(DMD):
                version, Config = 1, Options
            @hookimpl
            def register(zoo):
                terms = {"distribution-matching": {}}
                zoo.methods.add("mine", Mine, "a method", objectives=terms)
            """
        )
    )
    changes = {"arms": {"a": {"method": {"name": "mine", "reward": str(reward)}}}}
    for content in ("one", "another"):
        reward.write_text(content)
        zoo = load_zoo([SIZES, str(plugin)])
        jobs = planned(changes, zoo)
        folders.append(arm(jobs).folder)
        assert {job.folder for job in jobs if job.seed is None} == {
            job.folder for job in planned() if job.seed is None
        }
    assert folders[0] != folders[1]


def test_an_edited_method_trains_again(planned, trainings, tmp_path):
    plugin, folders = tmp_path / "mine.py", []
    changes = {"arms": {"a": {"method": {"name": "mine"}}}}
    for source in (METHOD, METHOD + "# an edit", METHOD.replace("    pass", "    version = 1")):
        plugin.write_text(source)
        zoo = load_zoo([SIZES, str(plugin)])
        folders.append(arm(planned(changes, zoo)).folder)
    assert len(set(folders)) == 3
    do(arm(planned(changes, zoo)), zoo)
    assert trainings == ["a"]
    plugin.write_text(METHOD.replace("    pass", "    version = 1") + "# an edit")
    assert arm(planned(changes, load_zoo([SIZES, str(plugin)]))).folder == folders[-1]


def test_an_edited_objective_trains_again(planned, tmp_path):
    """A part that only another part names is a part of the run, too."""
    plugin, keys = tmp_path / "term.py", []
    source = textwrap.dedent(
        """
        from salt_zoo import hookimpl
        class Term:
            weight = 1.0
            def __init__(self, config, zoo): pass
            def on_exit(self, exit, path, turn): return exit.x0.square().mean()
            def on_video(self, video, path, turn): return None
        @hookimpl
        def register(zoo): zoo.objectives.add("term", Term, "a term")
        """
    )
    changes = {"arms": {"a": {"method": {"objectives": {"term": {}}}}}}
    for text in (source, source.replace(".square()", ".abs()")):
        plugin.write_text(text)
        jobs = planned(changes, load_zoo([SIZES, str(plugin)]))
        keys.append(arm(jobs).folder)
        assert {job.folder for job in jobs if job.seed is None} == {
            job.folder for job in planned() if job.seed is None
        }
    assert keys[0] != keys[1]
