"""What pages say of the committed reports is what these say.

`python -m tests.benchmarks.test_reports_page` prints the sentences that each page has to have, as
the reports are now.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from benchmarks.report.model.formats import level, listed
from tests.benchmarks import picture

ROOT = Path(__file__).resolve().parents[2]
REPORTS = ROOT / "reports"
PLUGINS = ROOT / "plugins"
PAGE = REPORTS / "README.md"

#: What a verdict is called in a sentence, in the order in which verdicts are told.
VERDICTS = {
    "supported": "supported",
    "contradicted": "contradicted",
    "yes": "worth it",
    "no": "not worth it",
    "inconclusive": "inconclusive",
}


def words(text: str) -> str:
    return " ".join(text.split())


@cache
def report(name: str) -> Mapping[str, Any]:
    """results.json as it is on disk: pages quote what is committed, not what would be rendered."""
    content: dict[str, Any] = json.loads((REPORTS / name / "results.json").read_text("utf-8"))
    return content


def minutes(name: str) -> int:
    """Of a study, from the beginning of its first job to the end of the last."""
    record = json.loads((REPORTS / name / "stated.json").read_text(encoding="utf-8"))
    began, ended = (
        datetime.fromisoformat(record[key]) for key in ("first_job_began", "last_job_ended")
    )
    return round((ended - began).total_seconds() / 60)


def at(verdicts: Iterable[tuple[int, str]]) -> str:
    """Verdicts by number of steps in words: `supported at 1, 4 and 8, inconclusive at 2`."""
    by_verdict: dict[str, list[int]] = {}
    for nfe, verdict in verdicts:
        by_verdict.setdefault(verdict, []).append(nfe)
    parts = [
        f"{said} at {listed([str(nfe) for nfe in sorted(by_verdict[key])])}"
        for key, said in VERDICTS.items()
        if key in by_verdict
    ]
    return ", ".join(parts)


def hypotheses(name: str, a: str, b: str, metric: str) -> str:
    """Verdicts of "a is better than b" at the training's length, by number of steps."""
    found = [
        (one["nfe"], one["verdict"])
        for one in report(name)["hypotheses"]
        if (one["a"], one["b"], one["metric"], one["sampler"]) == (a, b, metric, "sde")
        and one["length"] is None
        and not one["slope"]
    ]
    assert found, (name, a, b, metric)
    return at(found)


def answer(name: str, backbone: str) -> list[Mapping[str, Any]]:
    table = report(name)["answer"]
    assert table["metric"] == "digits-fd"
    return [row for row in table["rows"] if row["backbone"] == backbone]


def of_windows() -> str:
    """Differences between an arm with a window and the same method with the whole past."""
    pairs = {(f"{one}-full", f"{one}-window") for one in ("consistency", "dmd", "sc-dmd")}
    found = [
        one["better"]
        for one in report("self_forcing")["comparisons"]
        if (one["a"], one["b"]) in pairs
        and one["metric"] in ("digits-motion", "digits-rigidity")
        and one["sampler"] == "sde"
    ]
    better = Counter(found)
    return (
        f"Of the {len(found)} differences in `digits-motion` and `digits-rigidity` to the same "
        f"method with the whole past {better['a']} say worse and {better['b']} better"
    )


def told(verdicts: Iterable[str]) -> str:
    counts = Counter(verdicts)
    return (
        f"{counts['supported']} are supported, {counts['contradicted']} contradicted and "
        f"{counts['inconclusive']} inconclusive"
    )


def of_caches() -> list[str]:
    """Of the report `cda`: what its claims came to, and how much caches depend on their steps."""
    content = report("cda")

    def between(metric: str) -> str:
        means = [row["mean"] for row in content["rows"] if row["metric"] == metric]
        means = [mean for mean in means if mean is not None]
        return f"{min(means):.1%} to {max(means):.1%}"

    updates = [arm["updates"] for arm in content["arms"]]
    return [
        f"trainings of {min(updates):.0f} to {max(updates):.0f} updates",
        f"Of the paper's {len(content['claims'])} claims "
        f"{told(claim['verdict'] for claim in content['claims'])} at this size, of the study's "
        f"{len(content['hypotheses'])} hypotheses "
        f"{told(one['verdict'] for one in content['hypotheses'])} (Holm).",
        f"those of 2 steps differ from those of 8 by {between('cache-distance')}, those of 4 steps "
        f"by {between('cache-distance-4')}, and the last block changes by "
        f"{between('cache-sensitivity')} of its norm",
    ]


def sentences() -> list[tuple[Path, str]]:
    """By page the sentences that follow from the reports."""
    digits = answer("digits", "wan")
    quick = answer("quick", "wan")
    verdicts = [one["verdict"] for one in report("digits")["hypotheses"]]
    levels = listed([level(row["p_best"]) for row in digits])
    assert {row["best"] for row in (*digits, *quick)} == {"consistency"}
    dmd, consistency = PLUGINS / "salt_zoo_dmd", PLUGINS / "salt_zoo_consistency"
    found = [
        (PAGE, f"**{name}**: trained, measured and rendered, in {minutes(name)} minutes on")
        for name in ("quick", "digits", "self_forcing", "cda")
    ]
    found += [(PLUGINS / "salt_zoo_cda", text) for text in of_caches()]
    found += [(PAGE, text) for text in of_caches()[:2]]
    time = f"{minutes('quick')} minutes on two idle cores"
    found += [
        (ROOT / "README.md", f"Once everything is installed, it takes {time}"),
        (ROOT / "CHANGELOG.md", f"measures 32 prompts twice: {time}"),
        (
            PAGE,
            f"Of its {len(verdicts)} hypotheses {told(verdicts)}.",
        ),
        (
            PAGE,
            "By `digits-fd` consistency distillation has the lowest mean at every number of steps; "
            f"that it is the best of all arms is {at((r['nfe'], r['verdict']) for r in digits)} "
            f"(p = {levels}). Distilling is {at((r['nfe'], r['worth']) for r in digits)}.",
        ),
        (
            PAGE,
            "By `digits-fd` consistency distillation has the lowest mean of the bidirectional arms "
            "at every number of steps; that it is the best of them is "
            f"{at((r['nfe'], r['verdict']) for r in quick)}. Distilling is "
            f"{at((r['nfe'], r['worth']) for r in quick)}.",
        ),
        (PAGE, of_windows()),
        (
            consistency,
            f"Whether it is the best of all arms is {at((r['nfe'], r['verdict']) for r in digits)} "
            "(Holm); that it is better than the undistilled teacher with as few steps is "
            f"{hypotheses('digits', 'consistency', 'teacher-naive', 'digits-fd')}. Distilling is "
            f"{at((r['nfe'], r['worth']) for r in digits)}.",
        ),
    ]
    for page, arm, student in (
        (consistency, "consistency-full", "a student"),
        (dmd, "dmd-full", "`dmd`"),
    ):
        verdict = hypotheses("self_forcing", arm, "initial-naive", "digits-rigidity")
        rigid = f"{student} with the whole past is more rigid than the undistilled causal student"
        found.append((page, f"{rigid} is {verdict}."))
    for arm, name in {
        "dmd-8": "`dmd` on 8 steps",
        "dmd-4": "`dmd` on 4 steps",
        "sc-dmd-published": "the published form of SC-DMD",
        "sc-dmd-velocity": "the velocity form",
    }.items():
        verdict = hypotheses("digits", arm, "teacher-naive", "digits-fd")
        found.append((dmd, f"{name}: {verdict}"))
    return [(page if page.suffix else page / "README.md", text) for page, text in found]


@pytest.mark.parametrize(("page", "sentence"), sentences())
def test_a_page_says_what_the_report_says(page: Path, sentence: str) -> None:
    assert sentence in words(page.read_text(encoding="utf-8"))


QUOTED = re.compile(r"([-\d.]+) \[([-\d.]+), ([-\d.]+)\](?:, (supported|inconclusive)\b)?")
QUOTING = sorted(
    page
    for page in (*PLUGINS.glob("*/README.md"), PAGE, ROOT / "README.md")
    if QUOTED.search(words(page.read_text(encoding="utf-8")))
)


def test_pages_quote_intervals() -> None:
    assert {page.parent.name for page in QUOTING} >= {"salt_zoo_dmd", "salt_zoo_digits"}


@pytest.mark.parametrize("page", QUOTING, ids=lambda page: page.parent.name)
def test_an_interval_that_a_page_quotes_is_in_a_report(page: Path) -> None:
    known = []
    for name in ("quick", "digits", "self_forcing", "cda", "null"):
        content = report(name)
        known += [(one["mean"], one["low"], one["high"], None) for one in content["rows"]]
        for one in content["hypotheses"]:
            c = one["comparison"] or {}
            if c.get("difference") is not None:
                numbers = (c["difference"], c["low"], c["high"])
                known += [(*numbers, one["verdict"]), (*numbers, None)]
    for *quoted, verdict in QUOTED.findall(words(page.read_text(encoding="utf-8"))):
        assert any(
            said == (verdict or None) and all(map(_rounds_to, numbers, quoted))
            for *numbers, said in known
        ), (quoted, verdict)


def _rounds_to(number: float | None, text: str) -> bool:
    places = len(text.partition(".")[2])
    return number is not None and float(f"{number:.{places}f}") == float(text)


@pytest.mark.parametrize(
    "page",
    [PAGE, ROOT / "README.md", *sorted(PLUGINS.glob("*/README.md"))],
    ids=lambda page: page.parent.name,
)
def test_no_arm_is_ahead_without_a_verdict(page: Path) -> None:
    """Pages say "better" with a verdict or an interval, or "has the lowest mean"."""
    text = words(page.read_text(encoding="utf-8"))
    assert not re.findall(r"\b(?:ahead|beats?|outperforms?)\b", text)


if __name__ == "__main__":
    for page, sentence in sentences():
        print(f"{page.relative_to(ROOT)}: {sentence}")


def test_the_picture_shows_the_report_as_it_is() -> None:
    """`python -m tests.benchmarks.picture` takes it again."""
    from PIL import Image

    with Image.open(picture.PICTURE) as image:
        assert image.info[picture.KEY] == picture.digest()
