"""Every hook is documented, and called as its documentation says."""

from __future__ import annotations

import functools
import inspect
import itertools

import pluggy
import pytest
import torch

from salt_zoo import hookimpl
from salt_zoo.io.signals import signals_clean_up
from salt_zoo.plugin.manager import SPECIFIED, Zoo, load_zoo
from salt_zoo.plugin.registration import spec as hookspecs

#: The hooks that the study runner calls; its tests show that.
OF_STUDIES = {"study_finished", "report_sections"}


class Recorder:
    """A plugin that writes down how its hooks are called."""

    def __init__(self):
        self.calls = []

    @hookimpl
    def register(self, zoo):
        self.calls.append(("register", {"zoo": zoo}))

    @hookimpl
    def training_started(self, config, folder, step):
        self.calls.append(("training_started", {"config": config, "folder": folder, "step": step}))

    @hookimpl
    def step_finished(self, step, logs):
        self.calls.append(("step_finished", {"step": step, "logs": logs}))

    @hookimpl
    def checkpoint_saved(self, folder, step):
        whole = (folder / "state.json").is_file()
        self.calls.append(("checkpoint_saved", {"folder": folder, "step": step, "whole": whole}))

    def of(self, hook):
        return [arguments for name, arguments in self.calls if name == hook]


@pytest.fixture
def recorded():
    zoo, recorder = load_zoo(), Recorder()
    zoo.add_plugin("recorder", lambda: recorder)
    assert not zoo.broken
    return zoo, recorder


@pytest.mark.parametrize("hook", sorted(SPECIFIED))
def test_every_hook_is_documented(hook):
    specification = getattr(hookspecs, hook)
    assert len(inspect.getdoc(specification) or "") > 20
    for parameter in inspect.signature(specification).parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty


def test_every_hook_is_tested():
    assert set(dir(Recorder)) & SPECIFIED | OF_STUDIES == SPECIFIED


def test_the_hooks_of_a_training(recorded, train, tmp_path):
    zoo, recorder = recorded
    train(tmp_path, zoo)
    assert [name for name, _ in recorder.calls] == [
        "register",
        "training_started",
        "step_finished",
        "step_finished",
        "checkpoint_saved",
        "step_finished",
        "step_finished",
        "checkpoint_saved",
    ]
    (registered,) = recorder.of("register")
    assert registered["zoo"] is zoo
    (started,) = recorder.of("training_started")
    assert started["step"] == 0 and started["folder"] == tmp_path
    assert started["config"]["method"]["name"] == "teacher-forcing"
    assert started["config"]["method"]["timestep_shift"] == 5.0  # defaults are filled in
    finished = recorder.of("step_finished")
    assert [call["step"] for call in finished] == [1, 2, 3, 4]
    assert all(isinstance(call["logs"]["student/loss"], float) for call in finished)
    saved = recorder.of("checkpoint_saved")
    assert [(call["step"], call["folder"].name, call["whole"]) for call in saved] == [
        (2, "step-000002", True),
        (4, "step-000004", True),
    ]


def test_training_started_says_where_a_run_goes_on(recorded, train, tmp_path):
    zoo, recorder = recorded
    train(tmp_path, zoo)
    train(tmp_path, zoo)
    assert [call["step"] for call in recorder.of("training_started")] == [0, 4]


class Failing:
    def __init__(self, error):
        self.error = error
        self.asked = 0

    @hookimpl
    def step_finished(self):
        self.asked += 1
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("two\nlines"), SystemExit("bye")])
def test_a_failing_hook_costs_one_line_not_the_run(error, recorded, train, tmp_path, capsys):
    zoo, recorder = recorded
    failing = Failing(error)
    zoo.add_plugin("failing", lambda: failing)
    trainer = train(tmp_path, zoo)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: plugin 'failing' failed in step_finished")
    assert " ".join(str(error).split()) in line
    assert failing.asked == 1
    assert len(recorder.of("step_finished")) == 4 == len(trainer.history)


class Meddling:
    """A plugin whose hook changes what every network computes with."""

    @hookimpl
    def step_finished(self):
        torch.set_grad_enabled(False)
        torch.set_default_dtype(torch.float64)


def test_settings_that_a_hook_changes_are_put_back_and_told_once(recorded, train, tmp_path, capsys):
    plain = train(tmp_path / "plain", recorded[0])
    zoo = load_zoo()
    zoo.add_plugin("meddling", Meddling)
    trainer = train(tmp_path / "meddled", zoo)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "warning: plugin 'meddling' changed torch's default dtype, torch's gradient mode in "
        "step_finished, which is undone"
    )
    wanted = plain.networks["student"].state_dict()
    for name, value in trainer.networks["student"].state_dict().items():
        assert torch.equal(value, wanted[name])


def test_an_interrupt_in_a_hook_is_an_interrupt():
    zoo = Zoo()
    zoo.add_plugin("failing", lambda: Failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        zoo.hook.step_finished(step=1, logs={})


def test_in_a_command_an_interrupt_of_a_hooks_own_is_its_failure(capsys):
    """There Ctrl-C is known by its signal."""
    zoo = Zoo()
    zoo.add_plugin("failing", lambda: Failing(KeyboardInterrupt()))
    with signals_clean_up():
        assert zoo.hook.step_finished(step=1, logs={}) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert "'failing' failed in step_finished" in line and "KeyboardInterrupt" in line


def test_hooks_return_what_the_plugins_return():
    class Section:
        def __init__(self, title):
            self.title = title

        @hookimpl
        def report_sections(self, results):
            return [(self.title, results["text"])] if self.title else None

    zoo = Zoo()
    for title in ("first", "", "second"):
        zoo.add_plugin(f"plugin {title}", functools.partial(Section, title))
    found = zoo.hook.report_sections(results={"text": "told"}, folder=None)
    assert found == [[("second", "told")], [("first", "told")]]


def test_an_implementation_may_have_a_name_of_its_own():
    calls = []

    class Plugin:
        @pluggy.HookimplMarker("salt_zoo")(specname="step_finished")
        def note_the_step(self, step):
            calls.append(step)

    zoo = Zoo()
    zoo.add_plugin("plugin", Plugin)
    zoo.hook.step_finished(step=3, logs={})
    assert calls == [3] and not zoo.broken


def test_an_unknown_hook_is_no_attribute():
    with pytest.raises(AttributeError, match="step_finnished"):
        Zoo().hook.step_finnished(step=1)


SECTIONS = [
    *([3], [("a", "b", "c")], "text", [("title", None)], 3, [["a"]]),
    itertools.repeat(("title", "text")),
]


@pytest.mark.parametrize("made", SECTIONS, ids=str)
def test_sections_of_a_wrong_form_are_a_line(made, capsys):
    zoo = Zoo()
    plugin = type("Plugin", (), {"report_sections": hookimpl(lambda self, results: made)})()
    register = hookimpl(lambda self, zoo: None)
    type(plugin).register = register
    type(plugin).register.__name__ = "register"
    zoo.add_plugin("odd", lambda: plugin)
    assert not zoo.broken
    assert zoo.hook.report_sections(results={}, folder=None) == []
    line = capsys.readouterr().err
    assert line.startswith("warning: plugin 'odd' failed in report_sections")
    assert line.count("\n") == 1


def test_a_hook_changes_only_its_own_arguments():
    zoo = load_zoo()

    class Plugin:
        @hookimpl
        def register(self, zoo):
            pass

        @hookimpl
        def study_finished(self, results, folder):
            results["rows"].clear()

    zoo.add_plugin("clears", Plugin)
    results = {"rows": [1]}
    zoo.hook.study_finished(results=results, folder=None)
    assert results == {"rows": [1]}
