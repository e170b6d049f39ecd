"""The plain answer at the top of a report, written from the numbers: a sentence on whether
distilling is worth it, a table of the best arms, and what limits both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.model.formats import (
    decimals,
    duration,
    flops,
    in_steps,
    interval,
    level_text,
    listed,
    number,
    signed,
    whole,
)
from benchmarks.report.model.model import View
from benchmarks.report.sections.drift import sentence as drift_sentence
from benchmarks.stats.model.schema import (
    AnswerCost,
    AnswerRow,
    ClaimResult,
    HypothesisResult,
    Results,
    Undistilled,
    Verdict,
)

WORTH = {
    "yes": "yes",
    "no": "no",
    "inconclusive": "inconclusive",
    "not measured": "no comparison",
}


@dataclass(frozen=True)
class AnswerLine:
    """A row of the table, in words. `best_of_all`: whether the best arm is better than every other,
    not only than the next, with its `p`."""

    steps: str
    worth: str
    undistilled: list[str]
    best: str
    runner_up: str
    difference: str
    interval: str
    best_of_all: str
    p: str
    cost: list[str]


def answer_lines(view: View) -> list[AnswerLine]:
    """The table of results.json's `answer`; empty without one."""
    table = view.results.answer
    if not table:
        return []
    means = [row.mean for row in table.rows]
    means += [entry.mean for row in table.rows for entry in row.undistilled]
    places = decimals(means)
    several = len({row.backbone for row in table.rows}) > 1
    return [_line(row, places, several) for row in table.rows]


def _line(row: AnswerRow, places: int, several: bool) -> AnswerLine:
    finer = max(places, decimals([row.difference, row.low, row.high]))
    return AnswerLine(
        steps=(f"{row.backbone}, " if several else "") + in_steps(row.nfe),
        worth=WORTH[row.worth] + _once(row, row.worth),
        undistilled=[_undistilled(entry, row, places) for entry in row.undistilled],
        best=f"{row.best} {number(row.mean, places)}"
        + (f" ({row.setting})" if row.setting else ""),
        runner_up=row.runner_up or "–",
        difference=signed(row.difference, finer),
        interval=interval(row, finer) if row.low is not None else "",
        best_of_all={"supported": "yes"}.get(row.verdict, row.verdict)
        + _once(row, row.verdict)
        + (f" (no score of {listed(row.missing)})" if row.missing else ""),
        p=level_text(row.p_best) if row.p_best is not None else "",
        cost=_cost(row.cost),
    )


def _once(row: AnswerRow, verdict: str) -> str:
    """Why there is no verdict, where the best arm was trained once."""
    return " (one training)" if row.seeds == 1 and verdict == "inconclusive" else ""


def _undistilled(entry: Undistilled, row: AnswerRow, places: int) -> str:
    """One undistilled network with as many passes, and the comparison of the best arm with it."""
    guided = " with guidance" if entry.arm.endswith("guided") else ""
    start = "teacher" if entry.arm.startswith("teacher") else "initial student"
    other = entry.memory is not None and entry.memory != row.memory
    memory = f", memory {entry.memory}" if other else ""
    name = f"{start}{guided}{memory}, {in_steps(entry.nfe)}, {entry.sampler}"
    verdict = {
        "better": "the best arm is better",
        "worse": "the best arm is worse",
        "inconclusive": "no significant difference",
        "not measured": "no interval",
    }[entry.verdict]
    p = f", {level_text(entry.p_holm)}" if entry.p_holm is not None else ""
    return f"{name}: {number(entry.mean, places)} ({verdict}{p})"


def _cost(cost: AnswerCost) -> list[str]:
    if cost.updates is None:
        return ["–"]
    return [f"{whole(cost.updates)} updates", flops(cost.flops), duration(cost.seconds)]


def answer(view: View) -> list[str]:
    """Sentences: the verdicts on a paper's claims, where the study tests some; at which numbers of
    steps distilling is worth it; how many comparisons there are; which arms drift; and what a
    single seed, or two, cannot show."""
    results = view.results
    sentences = [claims_sentence(results)] if results.claims else []
    sentences.append(_worth(view))
    if results.comparisons_count:
        sentences.append(
            f"{results.comparisons_significant} of {results.comparisons_count} paired differences "
            "in metrics of quality (arms with each other and with undistilled networks) exclude "
            "zero at 95%, without adjustment; "
            f"about {results.comparisons_by_chance:.0f} would by chance if all were equal."
        )
    over_time = drift_sentence(view)
    sentences += [over_time] if over_time else []
    sentences += _limits(view)
    return sentences


def caption(view: View) -> str:
    """The metric of the table, and what its verdicts mean."""
    table = view.results.answer
    if not table or not table.rows:
        return ""
    metric = view.metric(table.metric)
    samplers = listed(list(dict.fromkeys(row.sampler for row in table.rows)))
    count = table.comparisons
    return (
        f"By {metric.name} ({metric.reading}), sampled with {samplers}. Worth it: the best arm is "
        "compared with the undistilled network that arms start from (of causal students their own "
        "initial network, with the memory of the study's first arm) at equal network passes, cache "
        "writes not counted; the cell names each setting that was measured, without guidance and "
        "with guidance at half the steps. p is adjusted (Holm) for "
        f"the {count.undistilled} comparisons with undistilled networks, and separately for the "
        f"{count.arms} between arms; yes, no, better and worse require p < 0.05 and more than one "
        f"training of an arm.{target_note(view, [metric.name])}"
    )


def target_note(view: View, names: Sequence[str]) -> str:
    """What a difference is of, for those of these metrics that have a target."""
    with_target = {m.name for m in view.results.metrics if m.target is not None}
    targets = [name for name in dict.fromkeys(names) if name in with_target]
    if not targets:
        return ""
    return f" Differences in {listed(targets)} are those of the distances to the target."


def _worth(view: View) -> str:
    table = view.results.answer
    if not table or not table.rows:
        return (
            "No arm was trained and measured by a metric of quality: there is nothing to compare."
        )
    metric = view.metric(table.metric)
    backbones = dict.fromkeys(row.backbone for row in table.rows)
    parts = []
    for backbone in backbones:
        rows = [row for row in table.rows if row.backbone == backbone]
        where = f"with the backbone {backbone}, " if len(backbones) > 1 else ""
        parts.append(where + _worth_at(rows))
    return f"By {metric.name} ({metric.reading}), {'; '.join(parts)}."


def _worth_at(rows: Sequence[AnswerRow]) -> str:
    """At which numbers of steps distilling is worth it."""
    steps: dict[str, list[int]] = {}
    for row in rows:
        steps.setdefault(row.worth, []).append(row.nfe)
    words = {
        "yes": "distilling is worth it at {} (the best arm is significantly better than its "
        "undistilled network in every measured setting with as many passes)",
        "no": "distilling is not worth it at {} (its undistilled network is significantly better "
        "than the best arm in a setting with as many passes)",
        "inconclusive": "it is inconclusive whether distilling is worth it at {}",
        "not measured": "there is nothing to compare with at {}",
    }
    return "; ".join(
        text.format(in_steps(*steps[key])) for key, text in words.items() if key in steps
    )


def _limits(view: View) -> list[str]:
    """What the number of seeds leaves open, and scores that are not finite."""
    sentences = []
    if once := view.trained(1):
        sentences.append(
            f"{_who(once, view)} trained once, so the intervals cover the choice of prompts and "
            "noise but not the spread over training seeds: an illustration, not evidence."
        )
    if twice := view.trained(2):
        sentences.append(
            f"{_who(twice, view)} trained twice. Two seeds leave one degree of freedom, so a "
            "difference between trainings can hardly be significant."
        )
    if view.results.carried:
        names = sorted({row.metric for row in view.results.rows if row.carried})
        sentences.append(
            f"Intervals of {listed(names)} are carried over from an older rendering, which did not "
            "keep the features; comparisons that it did not make have none."
        )
    if broken := view.not_finite():
        sentences.append(
            f"Some scores are not finite (NaN or infinite): {'; '.join(broken[:5])}"
            + (f"; {len(broken) - 5} more under Failures." if len(broken) > 5 else ".")
        )
    return sentences


def tuning(view: View) -> str:
    """How settings were chosen, as the study states it."""
    stated = view.results.study.tuning
    if not stated:
        return "The study does not state how the arms' settings were tuned."
    tried = stated.settings
    silent = [arm for arm in view.measured_arms if arm not in tried]
    rest = f" Nothing is stated for {listed(silent)}." if silent else ""
    if len(set(tried.values())) == 1:
        count = next(iter(tried.values()))
        text = f"Equal tuning: {count} setting{'s' if count != 1 else ''} tried for every arm"
    else:
        counts = ", ".join(f"{arm} {count}" for arm, count in tried.items())
        text = f"Unequal tuning (settings tried: {counts})"
    note = f" {stated.note}" if stated.note else ""
    return f"{text}, on the {stated.split} split.{rest}{note}"


def mixes(view: View) -> str:
    """What differs among the jobs of a study and should not: code, device, precision, torch."""
    provenance, parts = view.results.provenance, []
    for stamps, verb in ((provenance.trained_on, "trained"), (provenance.measured_on, "measured")):
        for fact in dict.fromkeys(fact for stamp in stamps for fact in stamp):
            values = list(dict.fromkeys(str(stamp.get(fact)) for stamp in stamps))
            if len(values) > 1:
                parts.append(f"{verb} with {len(values)} values of {fact} ({', '.join(values)})")
    return f"This report mixes: networks were {'; '.join(parts)}." if parts else ""


def _who(arms: Sequence[str], view: View) -> str:
    if len(arms) == len(view.measured_arms):
        return "Every arm was"
    return f"{listed(arms)} {'was' if len(arms) == 1 else 'were'}"


def claims_sentence(results: Results) -> str:
    claims = results.claims
    subject = "The one claim" if len(claims) == 1 else f"Of {len(claims)} claims"
    text = f"{subject} that this study tests: {_verdicts(claims)}"
    indices = sorted({index for claim in claims for index in claim.hypotheses})
    if len(indices) > len(claims):
        hypotheses = [results.hypotheses[index] for index in indices]
        text += f" (of the {len(indices)} hypotheses behind them: {_verdicts(hypotheses)})"
    supported = [claim.claim for claim in claims if claim.verdict == "supported"]
    return f"{text}. Supported: {'; '.join(supported)}." if supported else f"{text}."


def _verdicts(entries: Sequence[ClaimResult] | Sequence[HypothesisResult]) -> str:
    counts = Counter(entry.verdict for entry in entries)
    order: tuple[Verdict, ...] = ("supported", "inconclusive", "contradicted", "not measured")
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])
