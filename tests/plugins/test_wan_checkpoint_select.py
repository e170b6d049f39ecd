"""Which transformer of a file is taken: under any prefix, beside averages, critics and others."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from salt_zoo.core.base.errors import ZooError
from salt_zoo_wan.checkpoint.select import select_transformer

NAMES = ("patch_embedding.weight", "blocks.0.ffn.0.bias", "blocks.1.ffn.0.bias", "head.modulation")
WORDS = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=8).filter(
    lambda word: not any(part in word for part in ("ema", "lora", "fake", "critic", "optim"))
)


def network(value, prefix=""):
    return {prefix + name: torch.full((2, 2), float(value)) for name in NAMES}


def value_of(content, name="w.pt"):
    state = select_transformer(content, name)
    assert set(state) == set(NAMES)
    return state["head.modulation"][0, 0].item()


@given(prefix=st.lists(WORDS, max_size=4), around=st.lists(WORDS, max_size=2))
@settings(max_examples=80)
def test_any_prefix_that_all_names_share(prefix, around):
    content = network(3, "".join(f"{word}." for word in prefix))
    for key in around:
        content = {key: content, "epoch": 3}
    assert value_of(content) == 3


AVERAGES = [
    *("ema", "model_ema", "generator_ema", "ema_model", "state_dict_ema", "student_ema", "shadow"),
    *("ema_state_dict", "model_averaged", "average", "averaged_model", "swa_model", "EMA"),
]


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("raw", ["model", "state_dict", "generator", "student", "net"])
@pytest.mark.parametrize("flat", [False, True])
def test_an_average_is_taken_and_that_is_said(average, raw, flat, capsys):
    if flat:
        content = {**network(0, f"{raw}."), **network(1, f"{average}.")}
    else:
        content = {raw: network(0), average: network(1), "epoch": 3}
    name = f"{average} and {raw}, {flat}.pt"  # a line is said once in a process
    assert value_of(content, name) == 1
    said = capsys.readouterr().err
    assert said == f"note: {name}: the average {average!r} is taken, not {raw!r}\n"


@pytest.mark.parametrize("student", ["student", "generator", "G.student", "student_model"])
@pytest.mark.parametrize(
    "other", ["fake_score", "critic", "teacher", "discriminator", "real_score"]
)
def test_a_student_beside_others(student, other):
    assert value_of({student: network(1), other: network(0)}) == 1
    assert value_of({other: network(0), f"{other}_ema": network(2), student: network(1)}) == 1
    assert value_of({**network(1, f"{student}."), **network(0, f"{other}.")}) == 1


def test_a_teacher_alone_is_a_network():
    assert value_of({"teacher": network(1), "step": 3}) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": network(0), "b": network(1)}, "2 transformers ('a', 'b')"),
        ({"ema_0.99": network(0), "ema_0.9999": network(1)}, "2 transformers"),
        ({"critic": network(0)}, "a critic, not a generator ('critic')"),
        ({"model": network(0), "ema": {"shadow_params": [torch.ones(3)]}}, "an average ('ema')"),
        ({**network(0, "model."), "model_ema.blocks0ffn": torch.ones(3)}, "('model_ema')"),
        ({"model": network(0), "lora": {"q.lora_A.weight": torch.ones(2, 2)}}, "a LoRA"),
    ],
)
def test_nothing_is_guessed(content, words):
    with pytest.raises(ZooError) as error:
        select_transformer(content, "w.pt")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_an_optimizers_averages_are_none():
    state = {name: {"exp_avg": torch.ones(2, 2)} for name in NAMES}
    content = {"model": network(1), "optimizer": {"state": state}, "optim_ema": [torch.ones(2)]}
    assert value_of(content) == 1
