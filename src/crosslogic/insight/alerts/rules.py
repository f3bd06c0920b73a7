"""Which figures are worth an alert (product documentation, document 4 §9). Pure.

Invariant: the same figures give the same `once`, so that however often they are looked at, each threshold is told
once in its period; and of several thresholds that were passed at a stride, only the highest is told.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from crosslogic.insight.alerts.model import Budget, DailySpend, Drift, ExpiringCredit, FailedPayment, ReservedHour
from crosslogic.insight.notices.model import Notice, NoticeKind, Severity
from crosslogic.kernel.money import PUSD_PER_USD, usd_text

BUDGET_PERCENTS = (50, 80, 100)
SPIKE_TIMES = 10
SPIKE_AFTER_DAYS = 3  # a tenant's first days are no measure of what is usual
SPIKE_LEAST_PUSD = PUSD_PER_USD  # ten times next to nothing is nothing
CREDIT_WITHIN = (timedelta(days=1), timedelta(days=7))
DRIFT_PERCENTS = (0, 20, 50, 100)  # above or below the forecast
_SECONDS_AN_HOUR = 3600


def budget_alerts(budgets: Iterable[Budget], now: datetime) -> Iterator[Notice]:
    for budget in budgets:
        if budget.cap_pusd <= 0:
            continue  # nothing may be spent: that is a setting, and no news
        passed = [percent for percent in BUDGET_PERCENTS if budget.spent_pusd * 100 >= budget.cap_pusd * percent]
        if not passed:
            continue
        percent = passed[-1]
        spent, cap = usd_text(budget.spent_pusd), usd_text(budget.cap_pusd)
        yield Notice(
            org_id=budget.org_id,
            kind=NoticeKind.BUDGET,
            severity=Severity.ERROR if percent == 100 else Severity.WARNING,
            once=f"budget:{budget.org_id}:{budget.env_id or ''}:{budget.month}:{percent}",
            title=f"{percent} % of the month's budget of {budget.name} is spent",
            text=f"{spent} of {cap} USD are spent in {budget.month}.",
            facts={
                "env_id": budget.env_id,
                "month": budget.month,
                "percent": percent,
                "spent_usd": spent,
                "cap_usd": cap,
            },
            at=now,
        )


def spike_alerts(spends: Iterable[DailySpend], now: datetime) -> Iterator[Notice]:
    for spend in spends:
        days = len(spend.before_pusd)
        total = sum(spend.before_pusd)
        if days < SPIKE_AFTER_DAYS or spend.today_pusd < SPIKE_LEAST_PUSD:
            continue
        if spend.today_pusd * days <= SPIKE_TIMES * total:
            continue
        today, usual = usd_text(spend.today_pusd), usd_text(total // days)
        yield Notice(
            org_id=spend.org_id,
            kind=NoticeKind.SPEND_SPIKE,
            severity=Severity.ERROR,
            once=f"spike:{spend.org_id}:{spend.day.isoformat()}",
            title=f"Today costs more than {SPIKE_TIMES} times what is usual",
            text=f"{today} USD so far, where an average day has cost {usual} USD.",
            facts={"day": spend.day.isoformat(), "today_usd": today, "average_usd": usual, "days": days},
            at=now,
        )


def credit_alerts(credits_left: Iterable[ExpiringCredit], now: datetime) -> Iterator[Notice]:
    for credit in credits_left:
        left = credit.expires_at - now
        within = next((span for span in CREDIT_WITHIN if timedelta() < left <= span), None)
        if within is None or credit.left <= 0:
            continue
        amount = f"{usd_text(credit.left)} {credit.currency}"
        yield Notice(
            org_id=credit.org_id,
            kind=NoticeKind.CREDIT_EXPIRING,
            severity=Severity.WARNING,
            once=f"credit:{credit.grant_id}:{within.days}d",
            title=f"Credit of {amount} expires within {within.days} {'day' if within.days == 1 else 'days'}",
            text=f"{amount} are left, until {credit.expires_at:%Y-%m-%d %H:%M} UTC.",
            facts={
                "grant_id": credit.grant_id,
                "left": usd_text(credit.left),
                "currency": credit.currency,
                "expires_at": credit.expires_at.isoformat(),
            },
            at=now,
        )


def capacity_alerts(hours: Iterable[ReservedHour], now: datetime) -> Iterator[Notice]:
    """Once a day for what is reserved: an hour beyond it went on as ordinary traffic, at ordinary prices."""
    for hour in hours:
        reserved_tokens = hour.units * _SECONDS_AN_HOUR
        if hour.used_tokens <= reserved_tokens:
            continue
        where = "" if hour.region is None else f" in {hour.region}"
        yield Notice(
            org_id=hour.org_id,
            kind=NoticeKind.CAPACITY_EXCEEDED,
            severity=Severity.INFO,
            once=f"capacity:{hour.org_id}:{hour.model}:{hour.region or ''}:{hour.hour:%Y-%m-%d}",
            title=f"More than what is reserved of {hour.model}{where} was used",
            text=(
                f"{hour.used_tokens} tokens in the hour from {hour.hour:%Y-%m-%d %H:%M} UTC, "
                f"where {reserved_tokens} are reserved."
            ),
            facts={
                "model": hour.model,
                "region": hour.region,
                "hour": hour.hour.isoformat(),
                "used_tokens": hour.used_tokens,
                "reserved_tokens": reserved_tokens,
            },
            at=now,
        )


def payment_alerts(failed: Iterable[FailedPayment], now: datetime) -> Iterator[Notice]:
    for payment in failed:
        what = "credit" if payment.invoice_id is None else f"invoice {payment.invoice_id}"
        yield Notice(
            org_id=payment.org_id,
            kind=NoticeKind.PAYMENT_FAILED,
            severity=Severity.ERROR,
            once=f"payment:{payment.payment_id}",
            title=f"A payment for {what} did not go through",
            text="Pay another way, or look at the payment method.",
            facts={
                "payment_id": payment.payment_id,
                "invoice_id": payment.invoice_id,
                "amount_minor": payment.amount_minor,
                "currency": payment.currency,
                "failure_code": payment.failure_code,
            },
            at=now,
        )


def drift_alerts(drifts: Iterable[Drift], now: datetime) -> Iterator[Notice]:
    """Once a day for each figure and threshold. Slower than forecast breaks promises, faster wastes GPUs."""
    for drift in drifts:
        percent = [each for each in DRIFT_PERCENTS if abs(drift.error) * 100 >= each][-1]
        slower = drift.error > 0
        severity = Severity.WARNING if slower else Severity.INFO
        if drift.met is False:
            severity = Severity.ERROR
        figure, sign = drift.figure.upper(), "+" if slower else "-"
        broken = " Its target is broken." if drift.met is False else ""
        yield Notice(
            org_id=drift.org_id,
            kind=NoticeKind.FORECAST_DRIFT,
            severity=severity,
            once=f"drift:{drift.deployment_id}:{drift.figure}:{sign}{percent}:{drift.window_end:%Y-%m-%d}",
            title=f"{drift.name} is {'slower' if slower else 'faster'} than forecast",
            text=(
                f"p95 {figure} was {drift.seen_ms:,.0f} ms where {drift.forecast_ms:,.0f} ms were forecast for this "
                f"load ({drift.error:+.0%}), in windows in a row.{broken} Plan it anew: what was learnt counts."
            ),
            facts={
                "deployment_id": drift.deployment_id,
                "figure": drift.figure,
                "seen_ms": round(drift.seen_ms, 3),
                "forecast_ms": round(drift.forecast_ms, 3),
                "error": round(drift.error, 4),
                "target_met": drift.met,
            },
            at=now,
        )


def suspension_notice(org_id: str, entity_id: str, name: str, month: str, now: datetime) -> Notice:
    """An org or environment is suspended, for it has met its month's spending cap."""
    return Notice(
        org_id=org_id,
        kind=NoticeKind.SUSPENDED,
        severity=Severity.CRITICAL,
        once=f"suspended:{entity_id}:{month}",
        title=f"{name} is suspended: its budget of the month is spent",
        text=f"The spending cap of {month} is met. Raise it and activate {name} again, or wait for the next month.",
        facts={"entity_id": entity_id, "month": month},
        at=now,
    )
