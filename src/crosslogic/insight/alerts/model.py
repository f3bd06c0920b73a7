"""What alerts are decided from: a few figures of each org, as the database says them."""

from datetime import date, datetime

import msgspec


class Budget(msgspec.Struct, frozen=True):
    """A month's spending cap, and how much of it is spent."""

    org_id: str
    env_id: str | None  # None: the cap of the org itself
    name: str  # of the org or environment, for people
    month: str  # "2026-03", UTC
    cap_pusd: int
    spent_pusd: int


class DailySpend(msgspec.Struct, frozen=True):
    """What an org spent today so far, and on the days before."""

    org_id: str
    day: date  # UTC
    today_pusd: int
    before_pusd: tuple[int, ...]  # of each of the days before that had any usage


class ExpiringCredit(msgspec.Struct, frozen=True):
    """A grant of credit that is not used up."""

    org_id: str
    grant_id: str
    currency: str
    left: int  # 1e-12 of the currency's major unit
    expires_at: datetime


class ReservedHour(msgspec.Struct, frozen=True):
    """What an org used in one hour of what it has reserved capacity for."""

    org_id: str
    model: str
    region: str | None
    hour: datetime  # its beginning
    units: int  # tokens a second reserved
    used_tokens: int


class FailedPayment(msgspec.Struct, frozen=True):
    org_id: str
    payment_id: str
    invoice_id: str | None
    amount_minor: int
    currency: str
    failure_code: str | None  # as the provider names it


class Drift(msgspec.Struct, frozen=True):
    """A figure of a deployment that has left its forecast's interval for windows in a row."""

    org_id: str
    deployment_id: str
    name: str  # of the deployment, for people
    figure: str  # ttft, itl
    error: float  # relative: 0.5 is half as much again as forecast
    seen_ms: float
    forecast_ms: float
    met: bool | None  # whether the target is kept all the same; None: there is none
    window_end: datetime
