"""Libraries that cannot be imported: one line, with the variable that they may not like."""

from __future__ import annotations

import pytest

from salt_zoo.cli import guarded
from salt_zoo.core.base.imports import asked_of, failed_import


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TORCH_LOGS", "nonsense", "error: torch cannot be imported (ValueError: "),
        ("DIFFUSERS_ATTN_BACKEND", "nonsense", "WanBackbone cannot be loaded (ValueError: "),
    ],
)
def test_a_variable_that_a_library_refuses(name, value, said, write_run, tmp_path, shell):
    """`shell`: libraries read their variables as they are imported."""
    words = ("-m", "salt_zoo", "train", write_run(), "--out", tmp_path / "out")
    ended = shell(*words, environment={name: value})
    assert ended.code == 2 and not (tmp_path / "out").exists()
    assert said in ended.error and ended.error.endswith(
        f"; is {name}={value!r} in the environment right?"
    )


def raised_by(text: str, name: str) -> BaseException:
    """What a module of that name raises as it is imported."""
    try:
        exec(compile(text, f"{name}.py", "exec"), {"__name__": name})
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_whose_import_it_is(monkeypatch):
    """Only what goes wrong in somebody else's module, before it is there."""
    monkeypatch.setenv("WORD", "xyzzy")
    wrong = "raise ValueError('xyzzy: no such thing')"
    assert failed_import(raised_by(wrong, "torch.inner")) == (
        "torch cannot be imported (ValueError: xyzzy: no such thing); is WORD='xyzzy' in the "
        "environment right?"
    )
    for ours in ("salt_zoo.core.flow", "salt_zoo_wan.backbone", "benchmarks.run"):
        assert failed_import(raised_by(wrong, ours)) is None
    # a function of a module that is there
    called = {"__name__": "torch"}
    exec(f"def call():\n    {wrong}", called)
    with pytest.raises(ValueError) as raised:
        called["call"]()
    assert failed_import(raised.value) is None


def test_a_package_that_is_not_there():
    assert failed_import(raised_by("import not_a_package.inner", "salt_zoo.core")) == (
        "the package 'not_a_package' is not installed here (No module named 'not_a_package')"
    )
    assert failed_import(raised_by("import salt_zoo.not_a_module", "salt_zoo.core")) is None


def test_a_package_of_another_version():
    old = failed_import(raised_by("from accelerate import not_a_name", "salt_zoo.training"))
    assert old and old.startswith("the package 'accelerate' is of another version than is needed (")
    assert failed_import(raised_by("from salt_zoo import not_a_name", "salt_zoo.cli")) is None


def test_a_library_that_a_package_lacks():
    """As ctypes says it, which is an error of a file elsewhere."""

    def run():
        raise raised_by("import ctypes; ctypes.CDLL('libnowhere.so.9')", "bitsandbytes")

    assert guarded(run) == 2


def test_a_variable_is_asked_of_by_name_or_value(monkeypatch):
    monkeypatch.setenv("SOME_LEVEL", "12.5x")
    assert asked_of(ValueError("could not convert '12.5x'.")) == (
        "; is SOME_LEVEL='12.5x' in the environment right?"
    )
    assert asked_of(ValueError("SOME_LEVEL must be a number")) == (  # its value may be a secret
        "; is SOME_LEVEL in the environment right?"
    )
    assert asked_of(ValueError("nothing of the kind")) == ""


@pytest.mark.parametrize("value", ["no", "16", "1", "none", "true", "False"])
def test_a_usual_value_is_not_blamed(value, monkeypatch):
    monkeypatch.setenv("SOME_LEVEL", value)
    assert asked_of(ValueError(f"there is {value} thing here")) == ""
