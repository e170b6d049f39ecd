"""The plain answer at the top of a report, written from the numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.report_view import Entry, View, decimals, number


def answer(view: View) -> list[str]:
    """Two sentences: who is better and by how much, and how many comparisons that was chosen from;
    a third where a single seed limits what they mean."""
    results = view.results
    sentences = [_who(view)]
    count, clear = results["comparisons_count"], results["comparisons_clear"]
    if count:
        chance = results["comparisons_by_chance"]
        sentences.append(
            f"{count} comparisons were made and {clear} of them have a 95% interval clear of zero; "
            f"about {chance:.0f} would if no arm differed from another."
        )
    if view.seeds == 1:
        sentences.append(
            "Every arm was trained once, so the intervals cover the choice of prompts and noise, "
            "not what another training seed would give: an illustration, not evidence."
        )
    return sentences


def _who(view: View) -> str:
    distilled = {row["arm"] for row in view.results["rows"] if not row["reference"]}
    if not distilled:
        return "No arm was trained and measured, so there is nothing to compare."
    if len(distilled) == 1:
        return _against_naive(view, next(iter(distilled)))
    between = [c for c in view.results["comparisons"] if c["b"] in distilled]
    wins, losses, made = Counter[str](), Counter[str](), Counter[str]()
    for entry in between:
        made.update((entry["a"], entry["b"]))
        if entry["favours"]:
            better, worse = entry["favours"], "b" if entry["favours"] == "a" else "a"
            wins[entry[better]] += 1
            losses[entry[worse]] += 1
    ranking = sorted(distilled, key=lambda arm: (losses[arm] - wins[arm], view.arms.index(arm)))
    first, second = ranking[:2]
    lead = (wins[first] - losses[first]) - (wins[second] - losses[second])
    if lead == 0:
        return (
            f"No arm is better than all others: {first} and {second} come out even, each with "
            f"{wins[first]} and {wins[second]} of their {made[first]} comparisons with other "
            f"distilled arms clearly in their favour. {_example(view, first, second)}"
        ).strip()
    return (
        f"{first} is the best of {len(distilled)} distilled arms most often: {wins[first]} of its "
        f"{made[first]} comparisons with the others are clearly in its favour and "
        f"{losses[first]} against it{_example(view, first, second)}."
    )


def _example(view: View, first: str, second: str) -> str:
    """The difference of the two leading arms, in the study's first metric."""
    entry = _entry(view, first, second)
    if entry is None:
        return ""
    sign = 1 if entry["a"] == first else -1
    return f"; {_in_words(entry, f'that of the next best, {second}', sign)}"


def _in_words(entry: Entry, other: str, sign: int = 1) -> str:
    """A comparison as a clause, `sign` times its difference: how much, and whether it is real."""
    places = decimals([entry["difference"]])
    where = f"at {entry['nfe']} steps its {entry['metric']} ({entry['better']} is better)"
    if entry["low"] is None:
        return f"{where} has no number to compare with {other}"
    difference = sign * entry["difference"]
    low, high = sorted(sign * entry[end] for end in ("low", "high"))
    bounds = f"(95% interval of the difference {number(low, places)} to {number(high, places)})"
    if not entry["clear"]:
        return f"{where} is not clearly different from {other} {bounds}"
    way = "higher" if difference > 0 else "lower"
    return f"{where} is {way} than {other} by {number(abs(difference), places)} {bounds}"


def _against_naive(view: View, arm: str) -> str:
    against = view.results["comparisons"]
    better = sum(entry["favours"] == "a" for entry in against)
    worse = sum(entry["favours"] == "b" for entry in against)
    text = (
        f"{arm}, the only distilled arm, is clearly better than the teacher run with as few steps "
        f"in {better} of {len(against)} comparisons and clearly worse in {worse}"
    )
    entry = _entry(view, arm, "teacher-naive")
    if entry:
        text += "; " + _in_words(entry, "the teacher's")
    return text + "."


def _entry(view: View, first: str, second: str) -> Entry | None:
    """Of the comparisons of two arms, the one a single sentence quotes: the first metric's, under
    the first setting, at the number of steps that pictures show."""
    order = [metric["name"] for metric in view.metrics]

    def rank(entry: Entry) -> tuple[Any, ...]:
        return (
            [(s.backbone, s.sampler) for s in view.settings].index(
                (entry["backbone"], entry["sampler"])
            ),
            entry["nfe"] != view.shown_nfe,
            order.index(entry["metric"]),
        )

    both = [c for c in view.results["comparisons"] if {c["a"], c["b"]} == {first, second}]
    return min(both, key=rank, default=None)
