"""The four memories against slow, literal references; and what they cost, refuse and switch."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from salt_zoo.core.base.errors import ZooError
from salt_zoo_self_forcing.cache import CacheShape, KVCache
from tests.plugins.tiny_causal import at, network, policy, prompt, video

GAP = 21


@dataclass
class Reference:
    """The rules, word for word: a list of committed frames, each a number that names it."""

    name: str
    size: int = 0
    sink: int = 0
    frames: list[int] = field(default_factory=list)
    made: int = 0
    #: For each cut the frame that came right after it.
    cuts: list[int] = field(default_factory=list)

    def seen(self, count: int) -> dict[int, int]:
        """Frame -> position of all that a next block of `count` frames sees, itself included."""
        video = [*self.frames, *range(self.made, self.made + count)]
        if self.name == "full":
            return {frame: frame for frame in video}
        sink, rest = video[: self.sink], video[self.sink :]
        kept = sink + rest[max(0, len(rest) - (self.size - self.sink)) :]
        if self.name == "window":
            return {frame: frame for frame in kept}
        return {
            frame: place + GAP * sum(frame >= cut for cut in self.cuts)
            for place, frame in enumerate(kept)
        }

    def commit(self, count: int) -> None:
        self.frames += range(self.made, self.made + count)
        self.made += count

    def flush(self) -> None:
        if len(self.frames) > 3:
            last = self.frames[-2:] if self.sink else self.frames[-3:]
            wanted = [*self.frames[: 1 if self.sink else 0], *last]
            held = [*self.frames[: self.sink], *self.frames[-(self.size - self.sink) :]]
            self.frames = [frame for frame in wanted if frame in held]
            self.cuts = []

    def cut(self) -> None:
        self.cuts.append(self.made)


class Tagged:
    """A memory of one number a frame: which one it is, and the position it was stored at."""

    def __init__(self, name: str, most: int, **options: object) -> None:
        shape = CacheShape(1, 1, 1, 1, 1, torch.float64, "cpu")
        self.cache = KVCache(policy(name, **options), shape, most)
        self.made = 0

    def seen(self, count: int) -> dict[int, int]:
        """What a pass over the next block finds in the buffers."""
        placement = self.cache.policy.place(self.cache, count)
        frames = torch.arange(self.made, self.made + count, dtype=torch.float64)
        places = torch.tensor(placement.positions, dtype=torch.float64)
        with torch.no_grad():
            keys, values = self.cache.extended(
                0,
                frames.view(1, -1, 1, 1),
                places.view(1, -1, 1, 1),
                self.cache.rows(placement.slots),
                placement.used,
            )
        stored = values.flatten().tolist() if placement.keys is None else placement.keys
        assert len(placement.slots) == count
        assert keys.shape[1] == placement.used
        found = dict(zip(map(int, keys.flatten().tolist()), map(int, stored), strict=True))
        assert len(found) == placement.used, "no frame is seen twice"
        own = [found[frame] for frame in range(self.made, self.made + count)]
        assert own == placement.positions
        return found

    def commit(self, count: int) -> None:
        self.cache.commit(count)
        self.made += count


@st.composite
def streams(draw):
    """Sizes of a window with room for its blocks, and of the blocks."""
    block = draw(st.integers(1, 4))
    sink = draw(st.integers(0, 5))
    local = block + draw(st.integers(0, 6))
    first = draw(st.sampled_from([block, min(1, block)]))
    return sink + local, sink, [first] + [block] * draw(st.integers(1, 10))


@given(streams(), st.sampled_from(["full", "window", "block-relative", "ema-sink"]))
def test_what_is_seen_and_where(stream, name):
    size, sink, blocks = stream
    if name == "ema-sink":
        # numbers that name frames must not be averaged
        sink, size = max(sink, 1), size + (sink == 0)
        options = {"frames": size, "sink": sink, "decay": 1.0}
    else:
        options = {} if name == "full" else {"frames": size, "sink": sink}
    reference, found = Reference(name, size, sink), Tagged(name, sum(blocks), **options)
    for count in blocks:
        wanted = reference.seen(count)
        assert found.seen(count) == wanted
        assert found.seen(count) == wanted  # a second pass over the block finds the same
        reference.commit(count)
        found.commit(count)


@given(streams(), st.lists(st.sampled_from(["keep", "flush", "cut"]), min_size=11, max_size=11))
def test_flush_and_cut(stream, switches):
    size, sink, blocks = stream
    reference = Reference("block-relative", size, sink)
    options = {"frames": size, "sink": sink, "cut_gap": GAP}
    found = Tagged("block-relative", sum(blocks), **options)
    for count, switch in zip(blocks, switches, strict=False):
        found.cache.policy = policy("block-relative", on_switch=switch, **options)
        if switch == "flush":
            found.cache.switch([], lambda x: None)
            reference.flush()
        elif switch == "cut":
            found.cache.switch([], lambda x: None)
            reference.cut()
        assert found.seen(count) == reference.seen(count)
        reference.commit(count)
        found.commit(count)


@pytest.mark.parametrize(("size", "sink", "kept"), [(2, 1, [0, 5]), (2, 0, [4, 5]), (1, 0, [5])])
def test_a_flush_keeps_no_frame_that_has_left(size, sink, kept):
    found = Tagged("block-relative", 7, frames=size, sink=sink)
    for _ in range(6):
        found.seen(1)
        found.commit(1)
    found.cache.switch([], lambda x: None)
    assert found.cache.count == len(kept)
    assert found.cache.keys[0][0, : len(kept)].flatten().tolist() == kept


@given(streams(), st.sampled_from([0.0, 0.5, 0.999]))
def test_the_averaging_sink(stream, decay):
    size, sink, blocks = stream
    sink, size = max(sink, 1), size + (sink == 0)
    shape = CacheShape(1, 1, 1, 1, 1, torch.float64, "cpu")
    memory = policy("ema-sink", frames=size, sink=sink, decay=decay)
    cache, video = KVCache(memory, shape, 1), []  # the reference: every frame's number
    average: list[float] = []
    gone = sink
    for count in blocks:
        placement = memory.place(cache, count)
        new = torch.arange(len(video), len(video) + count, dtype=torch.float64) ** 2 + 1
        with torch.no_grad():
            keys, values = cache.extended(
                0,
                new.view(1, -1, 1, 1),
                -new.view(1, -1, 1, 1),
                cache.rows(placement.slots),
                placement.used,
            )
        video += new.tolist()
        average += video[len(average) : sink]
        # whatever this block does not see any more has gone into the sink by now
        while gone < len(video) - (size - sink):
            place = gone % sink
            average[place] = decay * average[place] + (1 - decay) * video[gone]
            gone += 1
        wanted = [*average, *video[max(sink, len(video) - (size - sink)) :]]
        order = torch.tensor(placement.keys).argsort()
        assert keys[0, order].flatten().tolist() == pytest.approx(wanted, rel=1e-12)
        assert values[0, order].flatten().tolist() == pytest.approx([-x for x in wanted], rel=1e-12)
        cache.commit(count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sink_dtype", ["float32", "cache"])
def test_the_averaging_sink_moves_in_bf16_as_in_float32(dtype, sink_dtype):
    """1 - decay is below half of bfloat16's last place: an average kept in it loses most of its
    small moves, as Reward Forcing's released code does (arXiv 2512.04678)."""
    memory = policy("ema-sink", frames=9, sink=3, sink_dtype=sink_dtype)

    def moved(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, KVCache]:
        cache = KVCache(memory, CacheShape(2, 1, 2, 12, 4, dtype, "cpu"), 9)
        generator, first = torch.Generator().manual_seed(0), torch.empty(0)
        for block in range(9):  # of 3 frames: from the third on 3 leave at each, 21 in all
            place = memory.place(cache, 3)
            new = torch.randn(2, 12, 2, 12, generator=generator).bfloat16().to(dtype)
            with torch.no_grad():
                cache.extended(0, new, -new, cache.rows(place.slots), place.used)
            cache.commit(3)
            if block == 0:
                first = cache.keys[0][:, :12].float().clone()
        assert torch.equal(cache.keys[0], -cache.values[0])
        return first, cache.keys[0][:, :12].float(), cache

    first, last, cache = moved(dtype)
    _, exact, _ = moved(torch.float32)
    moves, wanted = last - first, exact - first
    if dtype == torch.float32:
        assert torch.equal(moves, wanted) and not cache.beside
    elif sink_dtype == "float32":
        assert torch.equal(last, exact.bfloat16().float())
        assert torch.equal(cache.beside[0], exact)
        buffers = sum(t.nbytes for t in (*cache.keys, *cache.values))
        assert cache.bytes() == buffers + 2 * exact.nbytes
    else:
        assert not cache.beside
        assert moves.norm() < 0.5 * wanted.norm()


def test_a_recached_sink_begins_anew():
    memory = policy("ema-sink", frames=4, sink=1, decay=0.5)
    cache = KVCache(memory, CacheShape(1, 1, 1, 1, 1, torch.bfloat16, "cpu"), 4)

    def add(value: float) -> float:
        place = memory.place(cache, 1)
        with torch.no_grad():
            new = torch.full((1, 1, 1, 1), value)
            cache.extended(0, new, new, cache.rows(place.slots), place.used)
        cache.commit(1)
        return float(cache.keys[0][0, 0])

    assert [add(value) for value in (8, 4, 4, 2, 4)] == [8, 8, 8, 6, 5]
    cache.reset()
    assert [add(value) for value in (1, 4, 4, 5, 4)] == [1, 1, 1, 2.5, 3.25]


@pytest.mark.parametrize("name", ["window", "window-int8", "block-relative", "ema-sink"])
@torch.no_grad()
def test_fifty_blocks_take_the_memory_of_one(name):
    net = network(policy(name, frames=6, sink=2))
    part, condition = video(2, rows=1), prompt(rows=1)
    memory = net.new_memory(video(2, rows=1))
    net.update_cache(part, at(0.0, 1), condition, memory)
    bytes_, places = memory.bytes(), [one.data_ptr() for one in (*memory.keys, *memory.values)]
    for _ in range(49):
        net.update_cache(part, at(0.0, 1), condition, memory)
    assert memory.count == 100
    assert memory.bytes() == bytes_ > 0
    assert [one.data_ptr() for one in (*memory.keys, *memory.values)] == places
    assert all(one.isfinite().all() for one in (*memory.keys, *memory.values))


@torch.no_grad()
def test_a_full_memory_refuses_what_it_has_no_room_for():
    net = network(policy("full"))
    x = video(4)
    memory = net.new_memory(x)
    for start in (0, 2):
        net.update_cache(x[:, :, start : start + 2], at(0.0), prompt(), memory)
    with pytest.raises(ZooError, match="made for 4 frames and is asked for 6") as refused:
        net(x[:, :, :2], at(0.5), prompt(), memory)
    assert "\n" not in str(refused.value)
    memory.reset()
    net(x[:, :, :2], at(0.5), prompt(), memory)


@pytest.mark.parametrize("name", ["window", "block-relative", "ema-sink"])
def test_a_window_with_no_room_for_a_block_refuses(name):
    net = network(policy(name, frames=4, sink=2), frames=3)
    with pytest.raises(ZooError, match="leaves 2 for a block of 3; raise its 'frames'"):
        net.update_cache(video(3), at(0.0), prompt(), net.new_memory(video(3)))
