"""Whatever a plugin's metric does wrong is one line that names it, and no business of others."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.study.metric_info import MetricInfo
from salt_zoo.core.base.errors import TrainingError, ZooError
from salt_zoo.core.base.rng import KeyedRNG
from salt_zoo.evaluation.videos import Videos, measure
from salt_zoo.plugin.isolation.checked_metric import make_metric
from salt_zoo.plugin.isolation.foreign import BrokenPart, ForeignError
from salt_zoo.plugin.manager import Zoo
from salt_zoo.plugin.registration.registry import NoOptions

TITLE = "metric 'broken' of plugin 'mine'"


class Sound:
    direction = "higher"
    own_steps = None

    def __init__(self, config: Any, zoo: Any) -> None:
        pass

    def measure(self, videos: Any) -> Any:
        return videos.pixels.flatten(1).mean(1)

    def reduce(self, rows: Tensor) -> Any:
        return float(rows.mean())


def made(**parts: Any) -> Any:
    zoo = Zoo()
    zoo.metrics.plugin = "mine"
    zoo.metrics.add("broken", type("Broken", (Sound,), parts), "a broken metric")
    return make_metric("broken", NoOptions(), zoo)


def videos(network: Any = None) -> Videos:
    pixels = torch.rand(3, 1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    dataset: Any = None
    return Videos(pixels, ["a", "b", "c"], KeyedRNG(0, (), range(3)), dataset, None, network)


def returning(value: Any) -> Any:
    return lambda self, given: value


ROWS = [
    None,
    torch.zeros(3).to_sparse(),
    [1.0, 2.0, 3.0],
    1.0,
    torch.tensor(1.0),
    torch.zeros(1),
    torch.zeros(4),
    torch.zeros(3, 2, 2),
    torch.zeros(3, dtype=torch.complex64),
    torch.zeros(3, device="meta"),
]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_rows_of_a_wrong_form(rows: Any):
    with pytest.raises(ForeignError) as caught:
        measure({"broken": made(measure=returning(rows))}, videos())
    assert str(caught.value).startswith(TITLE)


@pytest.mark.parametrize("number", [None, "0.5", [1.0], torch.zeros(2), 1j], ids=str)
def test_a_reduced_number_of_a_wrong_form(number: Any):
    with pytest.raises(ForeignError) as caught:
        made(reduce=returning(number)).reduce(torch.zeros(3))
    assert str(caught.value).startswith(TITLE)


def fails(self: Any, given: Any) -> Any:
    raise RuntimeError("two\nlines")


def exits(self: Any, given: Any) -> Any:
    sys.exit(0)


def tells(self: Any, given: Any) -> Any:
    raise ZooError("install something")


@pytest.mark.parametrize("method", [fails, exits, tells])
@pytest.mark.parametrize("part", ["measure", "reduce"])
def test_any_exception_names_the_metric(part: str, method: Any):
    metric = made(**{part: method})
    with pytest.raises(ForeignError) as caught:
        measure({"a": metric}, videos()) if part == "measure" else metric.reduce(torch.zeros(3))
    line = str(caught.value)
    assert line.startswith(TITLE)
    assert "\n" not in line


def spoils(self: Any, given: Any) -> Tensor:
    rows = given.pixels.flatten(1).mean(1)
    given.pixels.zero_()
    given.prompts.clear()
    return rows


def test_a_metric_that_works_in_place_changes_no_other():
    metrics = {"first": made(measure=spoils), "second": made()}
    apart = measure({"second": made()}, videos())["second"]
    assert torch.equal(measure(metrics, videos())["second"], apart)
    rows = torch.tensor([3.0, 1.0, 2.0])
    made(reduce=lambda self, given: float(given.zero_().sum())).reduce(rows)
    assert rows.tolist() == [3.0, 1.0, 2.0]


def test_what_a_metric_sets_for_the_process_is_put_back():
    def meddle(self: Any, given: Any) -> Any:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        return given.pixels.flatten(1).mean(1)

    rows = made(measure=meddle).measure(videos())
    assert torch.equal(rows, videos().pixels.flatten(1).mean(1))
    assert torch.ones(1).dtype == torch.float32 and torch.ones(1).device.type == "cpu"
    assert torch.is_grad_enabled()


def test_a_metric_that_changes_the_network_is_named():
    def changes(self: Any, given: Any) -> Tensor:
        with torch.no_grad():
            given.network.weight.zero_()
        return torch.zeros(3)

    with pytest.raises(TrainingError, match=f"^{TITLE}.*changed the weights") as caught:
        measure({"broken": made(measure=changes)}, videos(nn.Linear(2, 2)))
    assert not isinstance(caught.value, ForeignError)  # the network's job must end, too


def test_the_networks_mode_is_put_back():
    network = nn.Sequential(nn.Dropout()).eval()

    def trains(self: Any, given: Any) -> Tensor:
        given.network.train()
        return torch.zeros(3)

    measure({"broken": made(measure=trains)}, videos(network))
    assert not network[0].training


DECLARED = [
    {"direction": "sideways"},
    {"direction": None},
    {"direction": "target"},
    {"direction": "target", "target": "1"},
    {"direction": "target", "target": float("nan")},
    {"direction": "none", "kind": "quality"},
    {"kind": "fun"},
    {"bounds": (1, 0)},
    {"bounds": 1},
    {"bounds": ("a", "b")},
    {"own_steps": 0},
    {"own_steps": True},
    {"version": "2"},
    {"mean": "yes"},
    {"own_sampler": "euler"},
    {"whole_video": "no"},
    {"kind": property(lambda self: 1 / 0)},
]


@pytest.mark.parametrize("declared", DECLARED, ids=[*map(str, range(len(DECLARED)))])
def test_what_a_metric_says_of_itself(declared: dict[str, Any]):
    with pytest.raises(ForeignError) as caught:
        MetricInfo.of("broken", made(**declared), "")
    assert str(caught.value).startswith(TITLE)


@pytest.mark.parametrize("wanted", ["direction", "measure", "reduce"])
def test_what_a_metric_must_have(wanted: str):
    class Without(Sound):
        def __getattribute__(self, name: str) -> Any:
            if name == wanted:
                raise AttributeError(name)
            return super().__getattribute__(name)

    zoo = Zoo()
    zoo.metrics.add("without", Without, "it lacks something")
    with pytest.raises(BrokenPart, match=f"lacks '{wanted}'"):
        make_metric("without", NoOptions(), zoo)
