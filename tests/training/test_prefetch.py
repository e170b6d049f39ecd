"""Data of the next turn, read in another thread."""

from __future__ import annotations

import threading

import pytest
import torch

from salt_zoo import hookimpl
from salt_zoo.plugin.manager import load_zoo
from salt_zoo.training.data.prefetch import Place, Prefetch
from salt_zoo_digits.data import Digits

CPU = torch.device("cpu")
PLACES = [Place("student", step, 0, part) for step in range(3) for part in range(2)]


def after(place):
    following = PLACES.index(place) + 1
    return PLACES[following] if following < len(PLACES) else None


def reader():
    """A `read`, and the threads that it ran in, by place."""
    threads = {}

    def read(place):
        threads.setdefault(place, []).append(threading.current_thread().name)
        return place

    return read, threads


def test_each_place_is_read_once_and_ahead():
    read, threads = reader()
    data = Prefetch(read, after, CPU)
    assert [data.get(place) for place in PLACES] == PLACES
    data.close()
    assert [len(threads[place]) for place in PLACES] == [1] * len(PLACES)
    assert threads[PLACES[0]] == ["MainThread"]
    assert all(threads[place][0].startswith("data") for place in PLACES[1:])


def test_a_place_that_nobody_foresaw():
    read, _ = reader()
    data = Prefetch(read, after, CPU)
    assert data.get(PLACES[0]) == PLACES[0]
    assert data.get(PLACES[4]) == PLACES[4]
    assert data.get(PLACES[5]) == PLACES[5]
    data.close()
    assert data.get(PLACES[1]) == PLACES[1]  # it begins anew
    data.close()


def test_an_error_belongs_to_the_place_that_it_was_read_for():
    def read(place):
        if place == PLACES[1]:
            raise ValueError("the file is damaged")
        return place

    data = Prefetch(read, after, CPU)
    assert data.get(PLACES[0]) == PLACES[0]
    data.wait()
    with pytest.raises(ValueError, match="damaged"):
        data.get(PLACES[1])
    data.close()


class Watched(Digits):
    """Never used by two threads at once."""

    lock = threading.RLock()  # one thread may call on
    threads: set[str] = set()

    def _alone(self, make):
        assert Watched.lock.acquire(blocking=False)
        try:
            Watched.threads.add(threading.current_thread().name)
            return make()
        finally:
            Watched.lock.release()

    def sample(self, *arguments):
        return self._alone(lambda: super(Watched, self).sample(*arguments))

    def real(self, *arguments):
        return self._alone(lambda: super(Watched, self).real(*arguments))

    def prompts(self, *arguments):
        return self._alone(lambda: super(Watched, self).prompts(*arguments))


@hookimpl
def register(zoo):
    zoo.datasets.add("watched", Watched, "digits that one thread at a time may use")


def test_training_and_its_quality_take_turns(train, tmp_path):
    quality = {"every": 1, "prompts": 2, "steps": [1], "metrics": ["digits-motion"]}
    zoo = load_zoo([__name__, "tests.sizes.plugin"])
    before = threading.active_count()
    trainer = train(tmp_path / "a", zoo, dataset={"name": "watched"}, quality=quality)
    assert len(Watched.threads) == 2 and threading.active_count() <= before
    plain = train(tmp_path / "b", quality=quality)
    own, others = (
        torch.nn.utils.parameters_to_vector(run.networks["student"].parameters())
        for run in (trainer, plain)
    )
    assert torch.equal(own, others)
