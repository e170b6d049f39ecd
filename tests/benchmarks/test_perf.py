"""`python -m benchmarks.perf`: what it writes. No time is ever asserted."""

from __future__ import annotations

import itertools
import json
import math
import os

import pytest
import torch

from benchmarks.perf import main
from benchmarks.perf_suite.clock import Clock, growth, median_interval, quartiles
from salt_zoo.io.files.drafts import LOCK

TINY = [
    "--blocks", "6", "--growing", "3", "--recomputed", "2", "--repetitions", "2", "--pairs", "2",
    "--nfe", "2", "--batch", "1",
]  # fmt: skip
#: Two blocks, with random weights.
SIZE = ["--size", "test-small", "-p", "tests.sizes.plugin"]
#: Windows that have evicted frames after a few blocks.
SMALL = [
    "--set", "memories.window.frames=6",
    "--set", "memories.window-int8.frames=6",
    "--set", "memories.block-relative.frames=6",
    "--set", "memories.ema-sink.frames=6",
]  # fmt: skip


def perf(out, *arguments):
    assert main([*TINY, *arguments, "--device", "cpu", "--out", str(out)]) == 0
    return json.loads((out / "perf.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("perf")
    return perf(out, *SIZE, *SMALL), out


def test_all_memories_are_measured_and_files_written(measured):
    results, out = measured
    assert results["schema"] == 1
    assert set(results["memories"]) == {
        "block-relative",
        "ema-sink",
        "full",
        "window",
        "window-int8",
    }
    svg = (out / "perf.svg").read_text(encoding="utf-8")
    text = (out / "perf.md").read_text(encoding="utf-8")
    assert svg.startswith("<svg") and "recomputed" in svg
    for name in results["memories"]:
        assert name in svg and f"| {name} |" in text


def test_each_block_has_quartiles_and_bytes(measured):
    results, _ = measured
    for name, one in results["memories"].items():
        count = 3 if name == "full" else 6
        assert one["blocks"] == count == len(one["block_seconds"]) == len(one["memory_bytes"])
        assert all(0 < b["low"] <= b["median"] <= b["high"] for b in one["block_seconds"])
        first = one["first_block_seconds"]
        assert 0 < first["denoised"]["median"] <= first["decoded"]["median"]
        rates = one["frames_per_second"]
        assert rates["denoising"]["median"] >= rates["end_to_end"]["median"] > 0


def test_the_memory_of_a_window_is_constant_and_that_of_everything_grows(measured):
    memories = measured[0]["memories"]
    for name in ("window", "window-int8", "block-relative", "ema-sink"):
        assert memories[name]["memory_constant"] and len(set(memories[name]["memory_bytes"])) == 1
    sizes = memories["full"]["memory_bytes"]
    frame = 2 * 2 * 4 * 16 * 4 * 16  # keys and values, layers, heads, width, bytes, tokens
    assert [b - a for a, b in itertools.pairwise(sizes)] == [3 * frame] * 2


def test_growth_counts_blocks_with_a_full_window(measured):
    window = measured[0]["memories"]["window"]
    assert window["settled_from"] == 2
    assert window["growth"]["blocks"] == 100
    assert window["growth"]["low"] <= window["growth"]["value"] <= window["growth"]["high"]


def test_overhead_is_a_share_and_stricter_outside_the_transformer(measured):
    for one in measured[0]["memories"].values():
        overhead = one["overhead"]
        assert overhead["share"]["count"] == 2 and overhead["share"]["median"] < 1
        outside = overhead["outside"]
        assert 0 < outside["passes"]["median"] < outside["transformer"]["median"] < 1


def test_recomputed_attention_makes_the_same_video(measured):
    compared = measured[0]["recomputed"]
    assert compared["memory"] == "full" and compared["difference"] < 1e-4
    assert [row["blocks"] for row in compared["rows"]] == [1, 2]
    assert [row["frames"] for row in compared["rows"]] == [3, 6]


def test_provenance_says_what_was_measured_on(measured):
    results, out = measured
    hardware = results["provenance"]["hardware"]
    assert hardware["device"] == "cpu" and hardware["threads"] == 1
    assert results["provenance"]["versions"]["torch"] and results["provenance"]["inputs"]
    assert results["settings"]["nfe"] == 2 and results["clock"] == "processor"
    assert str(out) not in (out / "perf.json").read_text(encoding="utf-8")


def test_bf16(measured, tmp_path):
    results = perf(tmp_path, "--memories", "window", *SIZE, *SMALL[:2], "--precision", "bf16")
    full, _ = measured
    assert [one["settings"]["precision"] for one in (results, full)] == ["bf16", "fp32"]
    sizes = [one["memories"]["window"]["memory_bytes"][0] for one in (results, full)]
    assert sizes[0] < 0.6 * sizes[1]  # but for the rounding of attention, caches take half
    assert results["recomputed"]["difference"] < 0.1


@pytest.mark.slow
def test_a_compiled_network_is_measured(tmp_path):
    pytest.importorskip("torch._inductor")
    # one transformer block to compile
    some = ["--memories", "window", "--recomputed", "0", "--pairs", "1", "--blocks", "2"]
    some += ["--size", "test-tiny", "-p", "tests.sizes.plugin"]
    results = perf(tmp_path, *some, "--compile")
    assert results["recomputed"] is None
    assert results["memories"]["window"]["overhead"]["outside"] is None


def test_a_published_size_with_random_weights_fetches_nothing(tmp_path, monkeypatch):
    from diffusers import AutoencoderKLWan
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    from salt_zoo_wan.published import published_size as published
    from salt_zoo_wan.published_configs import PUBLISHED

    tiny = dict(
        PUBLISHED["wan2.1-t2v-1.3b"].transformer,
        num_attention_heads=2, attention_head_dim=12, ffn_dim=24, num_layers=2, text_dim=16,
    )  # fmt: skip
    vae = AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    monkeypatch.setattr(published.PublishedSize, "_transformer_config", lambda self: tiny)
    monkeypatch.setattr(published.PublishedSize, "codec_modules", lambda self: {"vae": vae})
    monkeypatch.setattr(
        published, "WanTransformer3DModel", lambda **options: WanTransformer3DModel(**options)
    )
    options = ["--set", "backbone.options.height=32", "--set", "backbone.options.width=32"]
    options += ["--set", "backbone.options.frames=9", "--precision", "bf16", "--random"]
    options += ["--blocks", "3", "--pairs", "1", "--repetitions", "1"]
    results = perf(
        tmp_path, "--size", "wan2.1-t2v-1.3b", "--memories", "full,window", *options,
        "--set", "memories.window.frames=6", "--set", "memories.window.sink=1",
    )  # fmt: skip
    window = results["memories"]["window"]
    assert results["latent_shape"] == [16, 3, 4, 4] and results["provenance"]["inputs"] == {}
    assert window["options"]["frames"] == 6 and window["first_block_frames"] == 9


def test_memories_have_the_same_weights():
    from benchmarks.perf_suite.setup import make_subjects
    from salt_zoo.plugin.manager import load_zoo

    found, _ = make_subjects(
        load_zoo(), "digits", ["full", "window"], [], batch=1, device=torch.device("cpu"),
        random=True,
    )  # fmt: skip
    one, other = (list(subject.network.parameters()) for subject in found)
    assert all(a.data_ptr() == b.data_ptr() for a, b in zip(one, other, strict=True))
    assert found[0].condition is found[1].condition


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--memories", "windw"], "did you mean 'window'"),
        (["--size", "digit"], "did you mean 'digits'"),
        (["--blocks", "1"], "--blocks 1: must be at least 2"),
        (["--nfe", "0"], "--nfe 0"),
        (["--device", "tpu"], "--device tpu"),
        (["--set", "memory.frames=6"], "unknown key"),
        (["--set", "memories.window.frame=6", "--memories", "window"], "did you mean 'frames'"),
        (["--set", "memories.windows.frames=6"], "not measured; did you mean 'window'"),
        (["--set", "memories.window=6"], "write memories.window.OPTION=VALUE"),
        (["--set", "backbone.memory=full"], "choose with --size and --memories"),
        (["--set", "memories.window.frames=4"], "raise its 'frames'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(arguments, told, tmp_path, capsys):
    assert main([*TINY, *arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*TINY, "--memories", "window", "--out", str(tmp_path / "file" / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_that_another_process_writes(tmp_path, capsys):
    lock = {"host": "node-17", "pid": 1, "started": 2, "since": "then"}
    (tmp_path / LOCK).write_text(json.dumps(lock))
    assert main([*TINY, "--memories", "window", "--out", str(tmp_path)]) == 2
    assert "another run writes there" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [LOCK]


def test_growth_of_made_up_runs():
    rising = [[1 + 0.002 * k for k in range(101)]] * 3
    found = growth(rising)
    assert found["value"] == pytest.approx(0.2 / 1.1) and not found["within_noise"]
    generator = torch.Generator().manual_seed(0)
    flat = [(10 + torch.randn(200, generator=generator)).tolist() for _ in range(5)]
    found = growth(flat)
    assert found["within_noise"] and found["low"] < found["value"] < found["high"] < 0.1
    spiked = [[1.0] * 50 + [40.0] + [1.0] * 50] * 2
    assert growth(spiked)["value"] == 0
    assert growth([[1.0, 2.0]]) is None
    assert growth([[1.0, 2.0, 3.0]])["low"] is None


def test_intervals_of_medians():
    assert quartiles([1, 2, 3, 4, 5]) == {"median": 3, "low": 2, "high": 4}
    assert median_interval([1, 2, 3])["low"] is None
    found = median_interval(list(range(30)))
    assert found["low"] < found["median"] < found["high"] and found["count"] == 30


def test_the_clock_runs():
    clock = Clock(torch.device("cpu"), 1)
    assert clock.kind == "processor" and Clock(torch.device("cpu"), 2).kind == "wall"
    assert math.isfinite(clock.lap()) and clock.lap() >= 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("extra", [[], ["--precision", "bf16"], ["--compile"]])
def test_perf_on_cuda(extra, tmp_path):
    arguments = [*TINY, *SMALL, "--pairs", "1", *extra, "--device", "cuda", "--out", str(tmp_path)]
    assert main(arguments) == 0
    results = json.loads((tmp_path / "perf.json").read_text(encoding="utf-8"))
    assert results["clock"] == "wall" and "error" not in results["recomputed"]
    assert all(one["peak_bytes"] > 0 for one in results["memories"].values())
