"""Reads result files of load generators: GuideLLM, AIPerf, `vllm bench serve`. Pure.

Invariant: only successful requests are read; offered and achieved rate are both kept, and over-saturated points come
back as left out, with the reason (GuideLLM issues 444, 216, 242: what happens to whoever reads all).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite
from typing import Any

import msgspec

from crosslogic.compass.knowledge.model import Benchmark, Setup, checked, doubt
from crosslogic.kernel.errors import InvalidRequest

_MOST_BYTES = 200_000_000

Fields = Mapping[str, Any]


class Tool(StrEnum):
    GUIDELLM = "guidellm"
    AIPERF = "aiperf"
    VLLM = "vllm"


class LeftOut(msgspec.Struct, frozen=True):
    """A point that is not taken, and why."""

    point: int  # counted from 1
    reason: str


class Read(msgspec.Struct, frozen=True):
    tool: Tool
    benchmarks: tuple[Benchmark, ...]
    left_out: tuple[LeftOut, ...]


def read_file(content: bytes, setup: Setup, *, profile: tuple[int, int] | None = None, source: str = "") -> Read:
    """The points of a result file; its own model name is taken where the set-up says none. Raises InvalidRequest.

    `profile`: prompt and output tokens as they were asked for; else the means that were measured, rounded.
    """
    if len(content) > _MOST_BYTES:
        raise InvalidRequest("the file is larger than 200 MB; benchmark results are not")
    tool, points = _points(content)
    taken: list[Benchmark] = []
    left_out: list[LeftOut] = []
    for number, fields in enumerate(points, 1):
        try:
            point = checked(_READERS[tool](fields, setup, profile, source or tool.value))
        except InvalidRequest as error:
            left_out.append(LeftOut(number, str(error)))
            continue
        reason = doubt(point)
        if reason is None:
            taken.append(point)
        else:
            left_out.append(LeftOut(number, reason))
    if not taken and not left_out:
        raise InvalidRequest(f"the {tool} file holds no benchmark")
    return Read(tool, tuple(taken), tuple(left_out))


def _points(content: bytes) -> tuple[Tool, list[Fields]]:
    try:
        whole = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        lines = [line for line in content.splitlines() if line.strip()]
        try:  # `vllm bench serve --append-result` writes one object a line
            whole = [msgspec.json.decode(line) for line in lines]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise InvalidRequest("the file is not JSON; give what guidellm, aiperf or vllm bench wrote") from None
    found = whole if isinstance(whole, list) else [whole]
    objects = [each for each in found if isinstance(each, Mapping)]
    if not objects:
        raise InvalidRequest("the file holds no result of guidellm, aiperf or vllm bench")
    first = objects[0]
    if isinstance(first.get("benchmarks"), list):
        return Tool.GUIDELLM, [each for each in first["benchmarks"] if isinstance(each, Mapping)]
    if "mean_ttft_ms" in first or ("request_throughput" in first and "completed" in first):
        return Tool.VLLM, objects
    if "time_to_first_token" in first or isinstance(first.get("records"), Mapping):
        return Tool.AIPERF, objects
    raise InvalidRequest("the file is of none of guidellm, aiperf, vllm bench: no field that one of them writes")


def _guidellm(fields: Fields, setup: Setup, profile: tuple[int, int] | None, source: str) -> Benchmark:
    metrics = _object(fields, "metrics")

    def of(metric: str, *path: str) -> float | None:
        return _number(metrics, metric, "successful", *path)

    prompt = of("prompt_token_count", "mean")
    output = of("output_token_count", "mean")
    config = _object(fields, "config") or _object(fields, "args")
    strategy = _object(config, "strategy")
    totals = _object(metrics, "request_totals")
    kind = str(strategy.get("type_", ""))
    return Benchmark(
        setup=setup,
        **_profile(profile, prompt, output),
        ttft_p95_ms=of("time_to_first_token_ms", "percentiles", "p95"),
        ttft_mean_ms=of("time_to_first_token_ms", "mean"),
        itl_p95_ms=of("inter_token_latency_ms", "percentiles", "p95"),
        itl_mean_ms=of("inter_token_latency_ms", "mean"),
        e2e_p95_ms=_times(of("request_latency", "percentiles", "p95"), 1e3),
        e2e_mean_ms=_times(of("request_latency", "mean"), 1e3),
        requests_per_second=of("requests_per_second", "mean"),
        offered_per_second=_number(strategy, "rate") if kind in ("constant", "poisson", "async") else None,
        concurrency=_number(strategy, "streams") or of("request_concurrency", "mean"),
        mean_input_tokens=prompt,
        mean_output_tokens=output,
        requests=_count(totals.get("successful")),
        failed=_count(totals.get("errored")) or 0,
        source=source,
        measured_at=_instant(fields.get("start_time")),
    )


def _vllm(fields: Fields, setup: Setup, profile: tuple[int, int] | None, source: str) -> Benchmark:
    completed = _count(fields.get("completed")) or 0
    prompt = _share(_number(fields, "total_input_tokens"), completed)
    output = _share(_number(fields, "total_output_tokens"), completed)
    asked = _count(fields.get("num_prompts")) or completed
    if setup.model == "" and isinstance(fields.get("model_id"), str):
        setup = msgspec.structs.replace(setup, model=fields["model_id"])
    return Benchmark(
        setup=setup,
        **_profile(profile, prompt, output),
        ttft_p95_ms=_number(fields, "p95_ttft_ms"),
        ttft_mean_ms=_number(fields, "mean_ttft_ms"),
        itl_p95_ms=_number(fields, "p95_tpot_ms"),
        itl_mean_ms=_number(fields, "mean_tpot_ms"),
        e2e_p95_ms=_number(fields, "p95_e2el_ms"),
        e2e_mean_ms=_number(fields, "mean_e2el_ms"),
        requests_per_second=_number(fields, "request_throughput"),
        offered_per_second=_number(fields, "request_rate"),
        concurrency=_number(fields, "max_concurrency"),
        mean_input_tokens=prompt,
        mean_output_tokens=output,
        requests=completed,
        failed=max(0, asked - completed),
        source=source,
        measured_at=_vllm_date(fields.get("date")),
    )


def _aiperf(fields: Fields, setup: Setup, profile: tuple[int, int] | None, source: str) -> Benchmark:
    records = fields.get("records")
    metrics: Fields = records if isinstance(records, Mapping) else fields

    def of(metric: str, statistic: str) -> float | None:
        value = _number(metrics, metric, statistic)
        unit = str(_object(metrics, metric).get("unit", "ms"))
        return _times(value, {"s": 1e3, "sec": 1e3, "us": 1e-3, "ns": 1e-6}.get(unit, 1.0))

    def plain(metric: str) -> float | None:
        return _number(metrics, metric, "avg")

    generator = _object(_object(fields, "input_config"), "loadgen")
    prompt, output = plain("input_sequence_length"), plain("output_sequence_length")
    return Benchmark(
        setup=setup,
        **_profile(profile, prompt, output),
        ttft_p95_ms=of("time_to_first_token", "p95"),
        ttft_mean_ms=of("time_to_first_token", "avg"),
        itl_p95_ms=of("inter_token_latency", "p95"),
        itl_mean_ms=of("inter_token_latency", "avg"),
        e2e_p95_ms=of("request_latency", "p95"),
        e2e_mean_ms=of("request_latency", "avg"),
        requests_per_second=plain("request_throughput"),
        offered_per_second=_number(generator, "request_rate"),
        concurrency=_number(generator, "concurrency"),
        mean_input_tokens=prompt,
        mean_output_tokens=output,
        requests=_count(plain("request_count")),
        failed=_count(plain("error_request_count")) or 0,
        source=source,
        measured_at=_instant(fields.get("start_time")),
    )


_Reader = Callable[[Fields, Setup, "tuple[int, int] | None", str], Benchmark]
_READERS: dict[Tool, _Reader] = {Tool.GUIDELLM: _guidellm, Tool.VLLM: _vllm, Tool.AIPERF: _aiperf}


def _profile(profile: tuple[int, int] | None, prompt: float | None, output: float | None) -> dict[str, Any]:
    if profile is not None:
        return {"prompt_tokens": profile[0], "output_tokens": profile[1]}
    return {"prompt_tokens": round(prompt or 0), "output_tokens": round(output or 0)}


def _object(fields: Fields, name: str) -> Fields:
    found = fields.get(name)
    return found if isinstance(found, Mapping) else {}


def _walk(fields: Any, path: tuple[str, ...]) -> Iterator[Any]:
    for name in path:
        fields = fields.get(name) if isinstance(fields, Mapping) else None
        yield fields


def _number(fields: Fields, *path: str) -> float | None:
    """The finite number at the end of this path; None for anything else ("inf" is how vllm says: at once)."""
    *_, value = _walk(fields, path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)


def _count(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        return None
    return int(value)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _share(total: float | None, count: int) -> float | None:
    return total / count if total is not None and count else None


def _instant(value: Any) -> datetime | None:
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found
        seconds = None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _vllm_date(value: Any) -> datetime | None:
    try:
        return datetime.strptime(str(value), "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
