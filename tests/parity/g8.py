"""G8: the alignment losses of CDA, and their gradients in the student's features.

The released `rbf` and `laplace` are the standard unbiased estimators; `energy` is not, and the
gradients of `laplace` are not numbers, so those are not compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from salt_zoo_cda.alignment import mmd, trd
from tests.parity.goldens import FORWARD, GRADIENT, Check, Golden, Skipped

TRD = re.compile(r"trd_(first_chunk_)?margin(?P<margin>[\d.]+)(_nfpb(?P<first>\d+))?")
MMD = re.compile(r"mmd_(?P<kernel>(temporal_)?[a-z]+)(?P<fold>_pdmv2)?(_sigma(?P<sigma>\d+))?")
#: Of losses by `laplace`. The released ones differ from the closed form as if a token were counted
#: 1e-5 away from itself and taken out as if it were not.
LAPLACE = 1e-4
#: Absolute, of losses by `rbf` and `laplace`: float32 means of kernels near 1 cancel.
ROUNDING = 2 * torch.finfo(torch.float32).eps


def check(golden: Golden) -> Iterator[Check | Skipped]:
    for case in golden.facts["cases"]:
        if f"{case}/loss" not in golden:
            continue
        student = golden["in/student"].clone().requires_grad_()
        reference, frames = golden["in/real"], golden.facts["num_frames"]
        if "energy" in case:
            yield from _skip(golden, case, ("loss", "grad"), "the released form adds E|y - y'|")
            continue
        if found := TRD.fullmatch(case):
            loss = _trd(student, reference, frames, found)
        elif found := MMD.fullmatch(case):
            loss = _mmd(student, reference, frames, found)
        else:
            continue  # listed as left over
        loss.backward()
        assert student.grad is not None
        yield from _compare(golden, case, "loss", loss, _loss_tolerance(golden, case))
        if "laplace" in case:
            yield from _skip(golden, case, ("grad",), "the released gradient is NaN")
        else:
            yield from _compare(golden, case, "grad", student.grad, GRADIENT)


def _trd(student: Tensor, reference: Tensor, frames: int, case: re.Match[str]) -> Tensor:
    first = int(case["first"] or frames)
    tokens = first * student.shape[1] // frames
    return trd(student[:, :tokens], reference[:, :tokens], first, float(case["margin"]))


def _mmd(student: Tensor, reference: Tensor, frames: int, case: re.Match[str]) -> Tensor:
    if case["fold"]:  # one set of tokens of all videos
        frames *= len(student)
        student, reference = (x.flatten(0, 1)[None] for x in (student, reference))
    kernel, sigma = case["kernel"], float(case["sigma"] or 1)
    return mmd(student, reference, frames, kernel, sigma)  # type: ignore[arg-type]


def _loss_tolerance(golden: Golden, case: str) -> float:
    size = golden[f"{case}/loss"].abs().item()
    if not size or not ("rbf" in case or "laplace" in case):
        return FORWARD
    return max(LAPLACE if "laplace" in case else FORWARD, ROUNDING / size)


def _compare(
    golden: Golden, case: str, quantity: str, found: Tensor, tolerance: float
) -> Iterator[Check]:
    for one in golden.compare(f"{case}/{quantity}", found, tolerance):
        yield Check(f"{golden.name}/{case}", quantity, one.error, one.tolerance)


def _skip(golden: Golden, case: str, quantities: tuple[str, ...], reason: str) -> Iterator[Skipped]:
    for quantity in quantities:
        if f"{case}/{quantity}" in golden:
            golden[f"{case}/{quantity}"]  # looked at, so that it is listed once
            yield Skipped(f"{golden.name}/{case}", quantity, reason)
