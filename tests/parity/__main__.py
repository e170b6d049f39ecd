"""The command `python -m tests.parity [DIR]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from salt_zoo.core.base.errors import ZooError
from tests.parity import g1, g2, g3, g4, g5, g6, g7, g8, g9
from tests.parity.goldens import Check, Golden, Skipped, WrongFolder

SUBSET = Path(__file__).resolve().parent.parent / "goldens"

COVERED: dict[str, Callable[[Golden], Iterator[Check | Skipped]]] = {
    "g1": g1.check,
    "g2": g2.check,
    "g3": g3.check,
    "g4": g4.check,
    "g5": g5.check,
    "g6": g6.check,
    "g7": g7.check,
    "g8": g8.check,
    "g9": g9.check,
}


def compare(folder: Path) -> Iterator[Check | Skipped]:
    """All checks of all cases in `folder`.

    Raises:
        WrongFolder: it holds no cases that are known, or a damaged one.
    """
    if not folder.is_dir():
        raise WrongFolder(f"{folder}: there is no such folder")
    names = [p.stem for p in sorted(folder.glob("*.safetensors")) if not p.stem.endswith("weights")]
    if not any(family(name) in COVERED for name in names):
        raise WrongFolder(f"{folder}: no goldens in it (NAME.safetensors with NAME from g1 to g9)")
    for name in names:
        if check := COVERED.get(family(name)):
            golden = Golden(folder, name)
            try:
                yield from check(golden)
                yield from golden.left_over()
            except (LookupError, TypeError, ValueError, RuntimeError, ZooError) as error:
                text = " ".join(str(error).split())[:200]
                reason = f"not a case of this family ({type(error).__name__}: {text})"
                raise WrongFolder(f"{folder / name}.safetensors: {reason}") from error
        else:
            yield Skipped(name, "all", "unknown case")


def family(name: str) -> str:
    return name.split("_")[0]


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 when all pass, 1 on a miss, 2 for a wrong folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=SUBSET, help="goldens")
    folder = parser.parse_args(arguments).folder
    checks: list[Check] = []
    skipped: list[Skipped] = []
    print(f"{'case':46} {'quantity':46} {'error':>9} {'tolerance':>9}  pass")
    try:
        for one in compare(folder):
            if isinstance(one, Skipped):
                skipped.append(one)
                continue
            checks.append(one)
            verdict = "yes" if one.passed else "NO"
            numbers = f"{one.error:9.1e} {one.tolerance:9.0e}"
            print(f"{one.case:46} {one.quantity:46} {numbers}  {verdict}")
    except WrongFolder as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for skip in skipped:
        print(f"skipped {skip.case}: {skip.quantity}: {skip.reason}")
    missed = sum(not one.passed for one in checks)
    print(f"{len(checks) - missed} of {len(checks)} quantities agree, {len(skipped)} skipped")
    return 1 if missed or not checks else 0


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
