"""The plain answer at the top of a report, written from the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report_drift import sentence as drift_sentence
from benchmarks.report_view import Entry, View, decimals, number


def answer(view: View) -> list[str]:
    """What became of a paper's claims, where the study tests some; who is better and by how much,
    how many comparisons that was chosen from, which arms drift, and a sentence where a single seed
    limits what all of it means."""
    results = view.results
    sentences = [claims_sentence(results)] if results.get("claims") else []
    sentences.append(_who(view))
    count, clear = results["comparisons_count"], results["comparisons_clear"]
    if count:
        chance = results["comparisons_by_chance"]
        sentences.append(
            f"{count} comparisons were made and {clear} of them have a 95% interval clear of zero; "
            f"about {chance:.0f} would if no arm differed from another."
        )
    over_time = drift_sentence(view)
    sentences += [over_time] if over_time else []
    if view.seeds == 1:
        sentences.append(
            "Every arm was trained once, so the intervals cover the choice of prompts and noise, "
            "not what another training seed would give: an illustration, not evidence."
        )
    return sentences


def claims_sentence(results: Mapping[str, Any]) -> str:
    claims = results["claims"]
    one = "The one claim" if len(claims) == 1 else f"Of {len(claims)} claims"
    text = f"{one} that this study tests: {_verdicts(claims)}"
    places = sorted({place for claim in claims for place in claim["outcomes"]})
    if len(places) > len(claims):
        outcomes = [results["primary"][place] for place in places]
        text += f" (of the {len(places)} outcomes that they rest on: {_verdicts(outcomes)})"
    shown = [claim["claim"] for claim in claims if claim["verdict"] == "shown"]
    return f"{text}. Shown: {'; '.join(shown)}." if shown else f"{text}."


def _verdicts(entries: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter(entry["verdict"] for entry in entries)
    order = ("shown", "not shown", "opposite", "not measured")
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])


def _who(view: View) -> str:
    distilled = {row["arm"] for row in view.results["rows"] if not row["reference"]}
    if not distilled:
        return "No arm was trained and measured, so there is nothing to compare."
    if len(distilled) == 1:
        return _against_naive(view, next(iter(distilled)))
    leaders = _leaders(view)
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
    if (wins[first] - losses[first]) == (wins[second] - losses[second]):
        most = f"over all metrics {first} and {second} come out even"
    else:
        most = (
            f"over all metrics {first} leads, with {wins[first]} of its {made[first]} comparisons "
            f"with the other arms clearly in its favour and {losses[first]} against it"
        )
    return f"{leaders}; {most}." if leaders else f"{most[0].upper()}{most[1:]}."


def _leaders(view: View) -> str:
    """The best arm at every number of steps, in the study's first metric and setting."""
    if not view.metrics or not view.settings:
        return ""
    metric, setting = view.metrics[0], view.settings[0]
    parts = []
    for nfe in view.nfes:
        rows = [
            row
            for row in view.results["rows"]
            if (row["metric"], row["nfe"]) == (metric["name"], nfe)
            and (row["backbone"], row["sampler"]) == (setting.backbone, setting.sampler)
            and not row["reference"]
            and row["mean"] is not None
        ]
        if not rows:
            continue
        sign = 1 if metric["better"] == "higher" else -1
        best, *others = sorted(rows, key=lambda row: -sign * row["mean"])
        steps = "1 step" if nfe == 1 else f"{nfe} steps"
        if best["winner"]:
            entry = _entry(view, best["arm"], others[0]["arm"], nfe)
            parts.append(f"at {steps} {best['arm']} is best{_margin(entry, others[0]['arm'])}")
        else:
            parts.append(f"at {steps} no arm is clear of all others ({best['arm']} comes first)")
    if not parts:
        return ""
    return f"By {metric['name']} ({metric['better']} is better), " + ", ".join(parts)


def _margin(entry: Entry | None, other: str) -> str:
    """How far a leader is ahead of the next."""
    if entry is None or entry["low"] is None:
        return ""
    low, high = sorted(abs(entry[end]) for end in ("low", "high"))
    places = decimals([entry["difference"]])
    ahead = number(abs(entry["difference"]), places)
    return f", {ahead} ({number(low, places)} to {number(high, places)}) ahead of {other}"


def _in_words(entry: Entry, other: str) -> str:
    """A comparison as a clause: how much, and whether it is real."""
    places = decimals([entry["difference"]])
    where = f"at {entry['nfe']} steps its {entry['metric']} ({entry['better']} is better)"
    if entry["low"] is None:
        return f"{where} has no number to compare with {other}"
    difference, low, high = entry["difference"], entry["low"], entry["high"]
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


def _entry(view: View, first: str, second: str, nfe: int | None = None) -> Entry | None:
    """Of the comparisons of two arms, the one a single sentence quotes: the first metric's, under
    the first setting, at `nfe` or the number of steps that pictures show."""
    order = [metric["name"] for metric in view.metrics]

    def rank(entry: Entry) -> tuple[Any, ...]:
        return (
            [(s.backbone, s.sampler) for s in view.settings].index(
                (entry["backbone"], entry["sampler"])
            ),
            entry["nfe"] != (nfe or view.shown_nfe),
            order.index(entry["metric"]),
        )

    both = [c for c in view.results["comparisons"] if {c["a"], c["b"]} == {first, second}]
    return min(both, key=rank, default=None)
