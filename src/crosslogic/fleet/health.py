"""How well each node is, pure: from what was observed of a fleet to a verdict for each node (§22.2).

A node over a limit is *degraded* at once and gets less. Still over it after `unhealthy_after_s` it is *unhealthy*, and
ejected: gateways offer it nothing while others can serve. When its time is over it gets a little again (*recovering*),
and what becomes of that brings it back, or sends it away for twice as long: a breaker, half open, for the whole fleet.

A node that is well, but whose cloud recommends to leave its machine (*at risk*), gets less; that ejects nobody.

Invariants: of the ACTIVE nodes that serve a model to the same owner in the same region at least one is never ejected,
and at most `max_ejected_ratio` of them are (one in any case); only unhealthy nodes are. A limit that was passed is left
at 90 % of it. Nothing is held against a node that too few requests tell of.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import msgspec

from crosslogic.fleet.model import Node, NodeHealth, NodeStatus, Symptom, Verdict
from crosslogic.kernel.ids import NodeId

LEAVE_RATIO = 0.9
FEWEST_FAILURES = 3  # a single failure among few requests is chance
LONGEST_EJECTION_S = 600.0

_BASELINE_MOVES_S = 30.0
_BASELINE_DOUBLES_S = 3600.0  # so slowly, at most, does what is usual follow what is measured
_FEW = 16
_WELL = NodeHealth()
_AT_RISK = NodeHealth(Verdict.DEGRADED, Symptom.AT_RISK, "its cloud may take the machine away before long")


class HealthRules(msgspec.Struct, frozen=True):
    """The limits; the defaults are the documents' where they name any."""

    window_s: float = 60.0  # requests that are younger count
    temperature_c: float = 90.0
    vram_fragmentation_ratio: float = 0.8
    oom_events: int = 3  # within `oom_window_s`
    oom_window_s: float = 300.0
    latency_factor: float = 3.0  # times the baseline
    error_ratio: float = 0.2
    min_requests: int = 10
    unhealthy_after_s: float = 15.0
    eject_s: float = 30.0  # the first time; doubles while it does not help
    max_ejected_ratio: float = 0.5


class Observed(msgspec.Struct, frozen=True):
    """What is known of a node now; None: nobody says."""

    temperature_c: float | None = None  # of its hottest GPU
    vram_fragmentation_ratio: float | None = None
    oom_events: int | None = None  # since its agent started
    requests: int = 0  # that it was given lately
    failures: int = 0  # of them, by its own fault
    first_tokens_ms: Mapping[str, Sequence[float]] = {}  # by model
    rebalance_recommended: bool = False


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is remembered of a node; times are seconds since 1970."""

    moved_s: float = 0.0  # when the baselines were last moved
    baselines_ms: Mapping[str, float] = {}  # usual time to the first token, by model
    oom_count: int | None = None
    ooms_s: tuple[float, ...] = ()
    over_since_s: Mapping[str, float] = {}  # by symptom
    ejected_until_s: float | None = None
    ejected_as: NodeHealth | None = None  # what for
    ejections: int = 0  # in a row
    trial_since_s: float | None = None  # recovering
    counted_from_s: float = 0.0  # requests before its last trial are not held against it


class Judgement(msgspec.Struct, frozen=True):
    health: NodeHealth
    history: History


class _Reading(msgspec.Struct, frozen=True):
    """One symptom: how much of its limit is reached (1 or more: over), for people too."""

    ratio: float
    detail: str


_Readings = Mapping[Symptom, _Reading]


def judged(
    fleet: Iterable[Node],
    observed: Mapping[NodeId, Observed],
    histories: Mapping[NodeId, History],
    now_s: float,
    rules: HealthRules,
) -> dict[NodeId, Judgement]:
    """A verdict for every node, and what to remember of it. `now_s` is in seconds since 1970."""
    nodes = sorted(fleet, key=lambda node: node.id)
    active = [node for node in nodes if node.status is NodeStatus.ACTIVE]
    slowness = _slowness(active, observed, histories, rules)
    found: dict[NodeId, Judgement] = {}
    for node in nodes:
        history = histories.get(node.id, History())
        if node.status is not NodeStatus.ACTIVE:  # whoever comes back begins anew
            found[node.id] = Judgement(_WELL, History(moved_s=history.moved_s, baselines_ms=history.baselines_ms))
            continue
        seen = observed.get(node.id, Observed())
        noted = _noted(history, seen, now_s, rules)
        judgement = _judge(noted, _readings(seen, noted, slowness.get(node.id), rules), seen, now_s, rules)
        if seen.rebalance_recommended and judgement.health.verdict is Verdict.HEALTHY:
            judgement = Judgement(_AT_RISK, judgement.history)
        found[node.id] = judgement
    return _spared(active, found, histories, now_s, rules)


def ejectable(active: Sequence[Node], wanted: Sequence[NodeId], max_ratio: float) -> frozenset[NodeId]:
    """Of `wanted`, first come first, those that no model of an owner in a region would miss."""
    by_id = {node.id: node for node in active}
    present: dict[tuple[str, str, str | None], int] = defaultdict(int)
    for node in active:
        for line in _lines(node):
            present[line] += 1
    ejected: dict[tuple[str, str, str | None], int] = defaultdict(int)
    chosen = set()
    for node_id in wanted:
        lines = _lines(by_id[node_id])
        if all(ejected[line] < min(max(1, int(max_ratio * present[line])), present[line] - 1) for line in lines):
            chosen.add(node_id)
            for line in lines:
                ejected[line] += 1
    return frozenset(chosen)


def said(metrics: Mapping[str, Any]) -> Observed:
    """What an agent's last report says of its node's hardware."""
    gpus = [gpu for gpu in metrics.get("gpus") or () if isinstance(gpu, Mapping)]
    ooms = metrics.get("oom_events")
    return Observed(
        temperature_c=_most(gpu.get("temperature_c") for gpu in gpus),
        vram_fragmentation_ratio=_most([metrics.get("vram_fragmentation_ratio")]),
        oom_events=ooms if isinstance(ooms, int) else None,
        rebalance_recommended=bool(metrics.get("rebalance_recommended")),
    )


def baseline_after(known_ms: float | None, measured_ms: float, elapsed_s: float) -> float:
    """A slowly moving median: it follows the measured ones, by a factor of two in an hour at most."""
    if known_ms is None:
        return measured_ms
    # A node that was long without traffic is not believed anything by that: an hour's step at most.
    step: float = 2.0 ** min(1.0, max(0.0, elapsed_s) / _BASELINE_DOUBLES_S)
    return min(max(measured_ms, known_ms / step), known_ms * step)


def _slowness(
    active: Sequence[Node], observed: Mapping[NodeId, Observed], histories: Mapping[NodeId, History], rules: HealthRules
) -> dict[NodeId, float]:
    """Each node's latency over its baseline, for the model where that is worst.

    Where the model's other nodes are slower than usual, too, that much is load and no node's own fault.
    """
    by_model: dict[str, dict[NodeId, float]] = defaultdict(dict)
    for node in active:
        baselines_ms = histories.get(node.id, History()).baselines_ms
        for model, taken_ms in observed.get(node.id, Observed()).first_tokens_ms.items():
            if len(taken_ms) >= rules.min_requests and model in baselines_ms:
                by_model[model][node.id] = median(taken_ms) / max(1.0, baselines_ms[model])
    found: dict[NodeId, float] = {}
    for ratios in by_model.values():
        of_all = median(ratios.values())
        for node_id, ratio in ratios.items():
            # Among many, leaving one out moves the median by nothing that matters.
            usual = of_all if len(ratios) > _FEW else _median_without(ratios, node_id)
            own = ratio / max(1.0, usual)
            found[node_id] = max(own, found.get(node_id, 0.0))
    return found


def _median_without(ratios: Mapping[NodeId, float], node_id: NodeId) -> float:
    """Of the others; 1 where there are none."""
    return median([ratio for other_id, ratio in ratios.items() if other_id != node_id] or [1.0])


def _noted(history: History, seen: Observed, now_s: float, rules: HealthRules) -> History:
    """The history with what was seen now."""
    baselines_ms = dict(history.baselines_ms)
    elapsed_s = now_s - history.moved_s
    moves = elapsed_s >= _BASELINE_MOVES_S
    for model, taken_ms in seen.first_tokens_ms.items():
        if len(taken_ms) >= rules.min_requests and (moves or model not in baselines_ms):
            baselines_ms[model] = baseline_after(baselines_ms.get(model), median(taken_ms), elapsed_s)
    known, count = history.oom_count, seen.oom_events
    new = 0 if count is None or known is None else count - known if count >= known else count
    ooms_s = [at_s for at_s in history.ooms_s if now_s - at_s < rules.oom_window_s]
    ooms_s += [now_s] * min(new, rules.oom_events)
    return msgspec.structs.replace(
        history,
        moved_s=now_s if moves and baselines_ms else history.moved_s,
        baselines_ms=baselines_ms,
        oom_count=known if count is None else count,
        ooms_s=tuple(ooms_s[-rules.oom_events :]),
    )


def _readings(seen: Observed, noted: History, slowness: float | None, rules: HealthRules) -> _Readings:
    found: dict[Symptom, _Reading] = {}
    if seen.temperature_c is not None:
        detail = f"{seen.temperature_c:.0f} °C, limit {rules.temperature_c:.0f}"
        found[Symptom.TEMPERATURE] = _Reading(seen.temperature_c / rules.temperature_c, detail)
    if seen.vram_fragmentation_ratio is not None:
        ratio, limit = seen.vram_fragmentation_ratio, rules.vram_fragmentation_ratio
        found[Symptom.VRAM_FRAGMENTATION] = _Reading(ratio / limit, f"{ratio:.0%} of the GPU memory, limit {limit:.0%}")
    if noted.ooms_s:
        count = len(noted.ooms_s)
        detail = f"out of memory {count} times or more in {rules.oom_window_s:.0f} s"
        found[Symptom.OOM] = _Reading(count / rules.oom_events, detail)
    if slowness is not None:
        detail = f"first token {slowness:.1f} times as late as usual, limit {rules.latency_factor:g}"
        found[Symptom.LATENCY] = _Reading(slowness / rules.latency_factor, detail)
    if seen.requests >= rules.min_requests or seen.failures >= FEWEST_FAILURES:
        over = seen.failures / seen.requests / rules.error_ratio if seen.failures >= FEWEST_FAILURES else 0.0
        found[Symptom.ERRORS] = _Reading(over, f"{seen.failures} of {seen.requests} requests failed")
    return found


def _judge(noted: History, readings: _Readings, seen: Observed, now_s: float, rules: HealthRules) -> Judgement:
    """The verdict on one node, for itself: as if it could be spared."""
    known = noted.over_since_s
    over = {
        symptom: reading
        for symptom, reading in readings.items()
        if reading.ratio >= 1.0 or (symptom in known and reading.ratio >= LEAVE_RATIO)
    }
    since_s = {symptom.value: known.get(symptom.value, now_s) for symptom in over}
    worst = max(over, key=lambda symptom: over[symptom].ratio, default=None)
    noted = msgspec.structs.replace(noted, over_since_s=since_s)
    if noted.ejected_until_s is not None:
        if now_s < noted.ejected_until_s or worst in (Symptom.TEMPERATURE, Symptom.VRAM_FRAGMENTATION):
            return _ejected(noted, worst, over)
        return _on_trial(noted, now_s)
    if worst is None:
        if noted.trial_since_s is None:
            return Judgement(_WELL, noted)
        # Nothing speaks against it; but it has to be given something first, or as long as it was away.
        shown = seen.requests >= rules.min_requests or now_s - noted.trial_since_s >= _away_s(noted, rules)
        if shown:
            return Judgement(_WELL, msgspec.structs.replace(noted, trial_since_s=None, ejections=0))
        return Judgement(_RECOVERING, noted)
    lasting = any(now_s - at_s >= rules.unhealthy_after_s for at_s in since_s.values())
    if lasting or noted.trial_since_s is not None:
        return Judgement(NodeHealth(Verdict.UNHEALTHY, worst, over[worst].detail), noted)
    return Judgement(NodeHealth(Verdict.DEGRADED, worst, over[worst].detail), noted)


_RECOVERING = NodeHealth(Verdict.DEGRADED, Symptom.RECOVERING, "back after it was ejected, with less to do")


def _ejected(noted: History, worst: Symptom | None, over: _Readings) -> Judgement:
    """Still away: for what ails it now, and where nothing new is known, for what it went for."""
    if worst is None:
        return Judgement(noted.ejected_as or _RECOVERING, noted)
    return Judgement(NodeHealth(Verdict.UNHEALTHY, worst, over[worst].detail, ejected=True), noted)


def _on_trial(noted: History, now_s: float) -> Judgement:
    clean = msgspec.structs.replace(noted, over_since_s={}, ooms_s=(), ejected_until_s=None, ejected_as=None)
    return Judgement(_RECOVERING, msgspec.structs.replace(clean, trial_since_s=now_s, counted_from_s=now_s))


def _away_s(history: History, rules: HealthRules) -> float:
    """How long an ejection lasts after so many in a row."""
    return min(LONGEST_EJECTION_S, rules.eject_s * 2.0 ** max(0, min(history.ejections, 16) - 1))


def _spared(
    active: Sequence[Node],
    found: dict[NodeId, Judgement],
    histories: Mapping[NodeId, History],
    now_s: float,
    rules: HealthRules,
) -> dict[NodeId, Judgement]:
    """Eject the unhealthy, as far as they can be spared; who is ejected already has the first claim to be."""

    def claim(node_id: NodeId) -> tuple[float, NodeId]:
        until_s = histories.get(node_id, History()).ejected_until_s
        return (float("inf") if until_s is None else until_s, node_id)

    unhealthy = sorted((n.id for n in active if found[n.id].health.verdict is Verdict.UNHEALTHY), key=claim)
    leaving = ejectable(active, unhealthy, rules.max_ejected_ratio)
    for node_id in unhealthy:
        health, history = found[node_id].health, found[node_id].history
        if node_id in leaving and not health.ejected:
            health = msgspec.structs.replace(health, ejected=True)
            history = msgspec.structs.replace(history, ejections=history.ejections + 1, trial_since_s=None)
            until_s = now_s + _away_s(history, rules)
            history = msgspec.structs.replace(history, ejected_until_s=until_s, ejected_as=health)
        elif node_id not in leaving and health.ejected:
            judgement = _on_trial(history, now_s)  # the others went: it is needed
            health, history = judgement.health, judgement.history
        found[node_id] = Judgement(health, history)
    return found


def _lines(node: Node) -> list[tuple[str, str, str | None]]:
    """Whom the node serves with what: model, region, owner."""
    return [(model, node.region, node.org_id) for model in dict.fromkeys(node.models)]


def _most(values: Iterable[Any]) -> float | None:
    return max((float(value) for value in values if isinstance(value, int | float)), default=None)
