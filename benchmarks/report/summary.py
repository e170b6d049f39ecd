"""The plain answer at the top of a report, written from the numbers: a sentence on whether
distilling is worth it, a table of the best arms, and what limits both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report.drift import sentence as drift_sentence
from benchmarks.report.formats import (
    decimals,
    duration,
    in_steps,
    interval,
    level_text,
    listed,
    number,
    quantity,
    signed,
)
from benchmarks.report.model import Entry, View
from benchmarks.study.metric_info import direction

WORTH = {
    "yes": "yes",
    "no": "no",
    "not shown": "not shown",
    "not measured": "nothing to compare with",
}


@dataclass(frozen=True)
class AnswerLine:
    """A row of the table, in words."""

    steps: str
    worth: str
    undistilled: list[str]
    best: str
    runner_up: str
    difference: str
    interval: str
    sure: str
    cost: str


def answer_lines(view: View) -> list[AnswerLine]:
    """The table of results.json's `answer`; empty without one."""
    table = view.results["answer"]
    if not table:
        return []
    means = [row["mean"] for row in table["rows"]]
    means += [cell["mean"] for row in table["rows"] for cell in row["undistilled"]]
    places = decimals(means)
    several = len({row["backbone"] for row in table["rows"]}) > 1
    return [_line(row, places, several) for row in table["rows"]]


def _line(row: Entry, places: int, several: bool) -> AnswerLine:
    differences = [row["difference"], row["low"], row["high"]]
    finer = max(places, decimals(differences))
    return AnswerLine(
        steps=(f"{row['backbone']}, " if several else "") + in_steps(row["nfe"]),
        worth=WORTH[row["worth"]],
        undistilled=[_undistilled(cell, places) for cell in row["undistilled"]],
        best=f"{row['best']} {number(row['mean'], places)}"
        + (f" ({row['setting']})" if row["setting"] else ""),
        runner_up=row["runner_up"] or "–",
        difference=signed(row["difference"], finer),
        interval=interval(row, finer) if row["low"] is not None else "",
        sure=_sure(row),
        cost=_cost(row["cost"]),
    )


def _undistilled(cell: Entry, places: int) -> str:
    """One undistilled network with as many passes, and how the best arm compares."""
    guided = " with guidance" if cell["arm"].endswith("guided") else ""
    start = "teacher" if cell["arm"].startswith("teacher") else "initial student"
    name = f"{start}{guided}, {in_steps(cell['nfe'])}, {cell['sampler']}"
    how = {
        "better": "the best arm is better",
        "worse": "the best arm is worse",
        "not shown": "no difference shown",
        "not measured": "no interval",
    }[cell["verdict"]]
    p = f", {level_text(cell['p_holm'])}" if cell["p_holm"] is not None else ""
    return f"{name}: {number(cell['mean'], places)} ({how}{p})"


def _sure(row: Entry) -> str:
    """Whether the best arm is better than every other, not only than the next."""
    if row["verdict"] == "only arm":
        return "the only arm"
    text = "best of all: " + row["verdict"]
    return f"{text}; {level_text(row['p_of_all'])}" if row["p_of_all"] is not None else text


def _cost(cost: Entry) -> str:
    if cost["updates"] is None:
        return "–"
    return (
        f"{quantity(cost['updates'])} updates, {quantity(cost['flops'])} FLOPs, "
        f"{duration(cost['seconds'])}"
    )


def answer(view: View) -> list[str]:
    """Sentences: what became of a paper's claims, where the study tests some; at which numbers of
    steps distilling is worth it; how many comparisons there are; which arms drift; and what a
    single seed, or two, cannot say."""
    results = view.results
    sentences = [claims_sentence(results)] if results.get("claims") else []
    sentences.append(_worth(view))
    count, clear = results["comparisons_count"], results["comparisons_clear"]
    if count:
        chance = results["comparisons_by_chance"]
        sentences.append(
            f"{clear} of {count} paired differences in metrics of quality, of arms and of "
            "undistilled networks, exclude zero at 95%; "
            f"about {chance:.0f} would by chance alone if all were equal."
        )
    over_time = drift_sentence(view)
    sentences += [over_time] if over_time else []
    sentences += _limits(view)
    return sentences


def caption(view: View) -> str:
    """By what the table is measured, and what its words mean."""
    table = view.results["answer"]
    if not table or not table["rows"]:
        return ""
    metric = view.metric(table["metric"])
    samplers = listed(list(dict.fromkeys(row["sampler"] for row in table["rows"])))
    made = table["comparisons"]
    return (
        f"By {metric['name']} ({direction(metric)}), the {samplers} sampler. Worth it: the best "
        "arm against the undistilled network with as many passes, also with guidance at half the "
        "steps, by every sampler of the study. p is adjusted (Holm) for the "
        f"{made['worth']} comparisons with undistilled networks, and for the {made['leads']} "
        "between arms; what is called shown, better or worse has p below 0.05."
    )


def _worth(view: View) -> str:
    table = view.results["answer"]
    if not table or not table["rows"]:
        return (
            "No arm was trained and measured by a metric of quality: there is nothing to compare."
        )
    metric = view.metric(table["metric"])
    backbones = dict.fromkeys(row["backbone"] for row in table["rows"])
    parts = []
    for backbone in backbones:
        own = [row for row in table["rows"] if row["backbone"] == backbone]
        where = f"with the backbone {backbone} " if len(backbones) > 1 else ""
        parts.append(f"{where}distilling {_worth_at(own)}")
    return f"By {metric['name']} ({direction(metric)}), {'; '.join(parts)}."


def _worth_at(rows: Sequence[Entry]) -> str:
    """At which numbers of steps distilling is worth it, as the end of a sentence."""
    at: dict[str, list[int]] = {}
    for row in rows:
        at.setdefault(row["worth"], []).append(row["nfe"])
    words = {
        "yes": "is worth it at {} (the best arm beats every undistilled network with as many "
        "passes)",
        "no": "is not worth it at {} (an undistilled network with as many passes is better)",
        "not shown": "is not shown to be worth it at {}",
        "not measured": "has nothing to be compared with at {}",
    }
    return "; it ".join(text.format(in_steps(*at[key])) for key, text in words.items() if key in at)


def _limits(view: View) -> list[str]:
    """What the number of seeds leaves open, and scores that are not finite."""
    sentences = []
    if once := view.trained(1):
        sentences.append(
            f"{_who(once, view)} trained once, so the intervals cover the choice of prompts and "
            "noise, not what another training seed would give: an illustration, not evidence."
        )
    if twice := view.trained(2):
        sentences.append(
            f"{_who(twice, view)} trained twice; two seeds leave one degree of freedom, so that "
            "hardly any difference between trainings can be shown."
        )
    if view.results.get("carried"):
        names = sorted({row["metric"] for row in view.results["rows"] if row.get("carried")})
        sentences.append(
            f"Intervals of {listed(names)} are carried over from an older rendering, which kept no "
            "features; a comparison that it did not make has none."
        )
    if broken := view.not_finite():
        sentences.append(
            f"Some scores are not finite (NaN or infinite): {'; '.join(broken[:5])}"
            + (f"; {len(broken) - 5} more under Failures." if len(broken) > 5 else ".")
        )
    return sentences


def tuning(view: View) -> str:
    """How settings were chosen, as the study states it."""
    stated = view.results["study"].get("tuning")
    if not stated:
        return "How the arms' settings were tuned is not stated by the study."
    tried = stated["settings"]
    silent = [arm for arm in view.measured_arms if arm not in tried]
    rest = f" Of {listed(silent)} nothing is stated." if silent else ""
    if len(set(tried.values())) == 1:
        count = next(iter(tried.values()))
        what = f"every arm with {count} setting{'s' if count != 1 else ''} tried"
        equal = f"Equal tuning: {what}"
    else:
        what = ", ".join(f"{arm} {count}" for arm, count in tried.items())
        equal = f"Unequal tuning, in settings tried: {what}"
    note = f" {stated['note']}" if stated.get("note") else ""
    return f"{equal}, on the {stated['split']} split.{rest}{note}"


def mixes(view: View) -> str:
    """What differs among the jobs of a study and should not: code, device, precision, torch."""
    parts = []
    for key, what in (("trained_on", "trained"), ("measured_on", "measured")):
        stamps = view.results["provenance"].get(key) or []  # schema 1 had none
        for fact in dict.fromkeys(fact for stamp in stamps for fact in stamp):
            values = list(dict.fromkeys(str(stamp.get(fact)) for stamp in stamps))
            if len(values) > 1:
                parts.append(f"{what} with {len(values)} values of {fact} ({', '.join(values)})")
    return f"This report mixes: networks were {'; '.join(parts)}." if parts else ""


def _who(arms: Sequence[str], view: View) -> str:
    if len(arms) == len(view.measured_arms):
        return "Every arm was"
    return f"{listed(arms)} {'was' if len(arms) == 1 else 'were'}"


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
