"""`python -m benchmarks.perf`: how fast a network generates block by block, and what it keeps."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from salt_zoo.cli import add_plugin_option, guarded, interruptible, with_plugins
from salt_zoo.cli.arguments import Parser, add_attention_option, folder
from salt_zoo.core.base.errors import ZooError, reason
from salt_zoo.io.consoles import NotesConsole, ResultsConsole
from salt_zoo.io.files.one_writer import one_writer
from salt_zoo.io.files.storage import prepare_folder, write_json, write_text
from salt_zoo.io.printing import show
from salt_zoo.plugin.manager import Zoo


@interruptible
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="python -m benchmarks.perf",
        description="Measure time and peak memory of block-by-block generation for each memory.",
        epilog="On a GPU: python -m benchmarks.perf --size wan2.1-t2v-1.3b --random --batch 1 "
        "--precision bf16 --memories full,window --compile",
    )
    add = parser.add_argument
    add("--size", default="digits", help="a registered size")
    add("--memories", help="e.g. full,window (default: all registered)")
    add("--blocks", type=int, default=200, help="blocks to generate (default: 200)")
    add(
        "--growing", type=int, default=40,
        help="number of blocks for memories that grow, capped at 8 GiB (default: 40)",
    )  # fmt: skip
    add(
        "--recomputed", type=int, default=20,
        help="number of blocks with recomputed attention; 0 skips it (default: 20)",
    )  # fmt: skip
    add("--nfe", type=int, default=4, help="denoising steps per block (default: 4)")
    add("--batch", type=int, default=4, help="batch size, in videos (default: 4)")
    add("--repetitions", type=int, default=5, help="repetitions of each measurement (default: 5)")
    add(
        "--pairs",
        type=int,
        default=30,
        help="paired runs of a rollout and its bare passes (default: 30)",
    )
    add("--device", default="auto", help="cpu, cuda or cuda:N")
    add(
        "--precision", choices=("auto", "fp32", "tf32", "bf16"), default="auto",
        help="precision of network passes, as in sample and stream (default: auto)",
    )  # fmt: skip
    add_attention_option(parser)
    add("--compile", action="store_true", help="torch.compile the network")
    add("--threads", type=int, default=1, help="CPU threads (default: 1)")
    add("--random", action="store_true", help="use random weights, without any download")
    add(
        "--set", action="append", default=[], metavar="a.b=VALUE", dest="overrides",
        help="override a key, e.g. backbone.block_frames=3, backbone.options.height=480 or "
        "memories.window.frames=12",
    )  # fmt: skip
    add(
        "--out",
        type=folder,
        default=Path("reports/perf"),
        help="output folder (default: reports/perf)",
    )
    add_plugin_option(parser)
    options = parser.parse_args(arguments)
    return guarded(lambda: with_plugins(run, options))


def run(options: argparse.Namespace, zoo: Zoo) -> int:
    for name, least in {
        "blocks": 2, "growing": 2, "recomputed": 0, "nfe": 1, "batch": 1, "repetitions": 1,
        "pairs": 0, "threads": 1,
    }.items():  # fmt: skip
        if getattr(options, name) < least:
            raise ZooError(f"--{name} {getattr(options, name)}: must be at least {least}")

    import torch  # takes seconds to import

    from benchmarks.perf_suite.report import markdown, plot
    from benchmarks.perf_suite.results import Plan, measure, total_blocks
    from benchmarks.perf_suite.setup import make_subjects
    from salt_zoo.core.networks.precision import precision_of
    from salt_zoo.training.devices import find_device

    device = find_device(options.device)
    torch.set_num_threads(options.threads)
    names = [name.strip() for name in (options.memories or "").split(",") if name.strip()]
    subjects, backbone = make_subjects(
        zoo,
        options.size,
        list(dict.fromkeys(names)) or [entry.name for entry in zoo.memories],
        options.overrides,
        batch=options.batch,
        device=device,
        random=options.random,
        precision=options.precision,
        attention=options.attention,
        compiled=options.compile,
    )
    with one_writer(options.out):
        prepare_folder(options.out)
        keys = ("blocks", "growing", "recomputed", "repetitions", "pairs", "nfe")
        plan = Plan(**{key: getattr(options, key) for key in keys})
        with _progress(total_blocks(subjects, plan)) as progress:
            try:
                results = measure(subjects, plan, device, progress)
            except Exception as error:
                if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise ZooError(f"--compile: does not work here ({reason(error)})") from error
                raise
        results["settings"] = {
            key: value
            for key, value in sorted(vars(options).items())
            if key not in ("out", "memories", "plugin", "device")
        }
        results["settings"]["precision"] = precision_of(subjects[0].network)  # auto is resolved
        results["latent_shape"] = list(backbone.latent_shape)
        results["parameters"] = sum(p.numel() for p in subjects[0].network.parameters())
        results["provenance"] = _provenance(zoo, str(device), backbone, options)
        write_json(options.out / "perf.json", results)
        write_text(options.out / "perf.svg", plot(results))
        write_text(options.out / "perf.md", markdown(results))
        _show(results)
        show(options.out / "perf.md")
        return 0


def _provenance(
    zoo: Zoo, device: str, backbone: Any, options: argparse.Namespace
) -> dict[str, Any]:
    from benchmarks.perf_suite.setup import PROMPT
    from benchmarks.runner.jobs.provenance import provenance

    inputs = {} if options.random else dict(backbone.fingerprint())
    found = provenance(zoo, device, inputs, [PROMPT], [])
    found["hardware"]["threads"] = options.threads
    return found


def _show(results: dict[str, Any]) -> None:
    """The tables on the terminal, memories side by side."""
    from rich.table import Table

    from benchmarks.perf_suite.report import COLUMNS, comparison, notes, table

    console = ResultsConsole()
    sides = Table(box=None, header_style="bold")
    columns = list(zip(COLUMNS, *table(results), strict=True))
    for heading in columns[0]:
        sides.add_column("" if heading == COLUMNS[0] else heading)
    for line in columns[1:]:
        sides.add_row(*line)
    console.print(sides, highlight=False)
    headings, rows = comparison(results)
    if rows:
        compared = Table(box=None, header_style="bold")
        for heading in headings:
            compared.add_column(heading)
        for row in rows:
            compared.add_row(*row)
        console.print(compared, highlight=False)
    for note in notes(results):
        console.print(note, markup=False, highlight=False)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """Yields what is called with what is measured and the blocks made for it; a bar in a
    terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = NotesConsole()
    if not console.is_terminal:
        yield lambda what, blocks: None
        return
    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    # a bar that draws itself from a second thread would be measured, too
    with Progress(*columns, console=console, auto_refresh=False) as bar:
        task = bar.add_task("", total=total)
        shown = ""

        def update(what: str, blocks: int) -> None:
            nonlocal shown
            bar.update(task, advance=blocks, description=what)
            if what != shown or bar.tasks[0].completed % 20 < blocks:
                bar.refresh()
                shown = what

        yield update


if __name__ == "__main__":
    sys.exit(main())
