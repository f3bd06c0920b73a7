"""Price versions and exchange rates with their dates: which of them held when. Pure.

A version is a draft, then published with a time from which it holds, then perhaps retired with a time from which it
holds no more. Invariant: neither time lies before the moment in which it was set, so what held at an earlier time stays
what it was.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

from crosslogic.pricing.card import PriceCard
from crosslogic.pricing.terms import PriceTerms

USD = "USD"


class VersionStatus(StrEnum):
    DRAFT = "draft"
    PUBLISHED = "published"
    RETIRED = "retired"


class VersionSource(StrEnum):
    OPERATOR = "operator"
    CONFIGURATION = "configuration"  # kept so that usage rated by it can be explained; nobody chooses it


class PriceVersion(msgspec.Struct, frozen=True):
    id: str
    org_id: str | None  # None: for all
    status: VersionStatus
    source: VersionSource
    currency: str
    terms: PriceTerms
    note: str
    created_at: datetime
    published_at: datetime | None = None
    effective_from: datetime | None = None
    retired_from: datetime | None = None

    def holds(self, at: datetime) -> bool:
        if self.source is not VersionSource.OPERATOR or self.effective_from is None or at < self.effective_from:
            return False
        return self.retired_from is None or at < self.retired_from


class ExchangeRate(msgspec.Struct, frozen=True):
    """Units of `currency` for one US dollar, from `effective_from` until the next."""

    currency: str
    effective_from: datetime
    rate: Decimal
    source: str
    created_at: datetime


class InForce(msgspec.Struct, frozen=True):
    """One version that may answer, and its card."""

    version: PriceVersion
    card: PriceCard


class PriceHistory:
    """All that was ever published, and the rates between currencies. Immutable."""

    def __init__(self, versions: Iterable[PriceVersion], rates: Iterable[ExchangeRate]) -> None:
        self._recorded: dict[str, PriceVersion] = {}
        self._of_org: dict[str | None, list[PriceVersion]] = {}
        self._cards: dict[str, InForce] = {}
        for version in sorted(versions, key=_newest_first, reverse=True):
            if version.status is VersionStatus.DRAFT:
                continue
            self._recorded[version.id] = version
            self._of_org.setdefault(version.org_id, []).append(version)
        self._rates: dict[str, list[ExchangeRate]] = {}
        for rate in sorted(rates, key=lambda each: each.effective_from, reverse=True):
            self._rates.setdefault(rate.currency, []).append(rate)

    def at(self, org_id: str, at: datetime) -> list[InForce]:
        """Who may answer, in order: the newest version of the org, then the newest for all."""
        found = []
        for owner in (org_id, None):
            version = next((each for each in self._of_org.get(owner, ()) if each.holds(at)), None)
            if version is not None:
                found.append(self._in_force(version))
        return found

    def owners(self) -> frozenset[str | None]:
        """Orgs that operators have published versions for; None among them: there are some for all."""
        return frozenset(
            owner
            for owner, versions in self._of_org.items()
            if any(each.source is VersionSource.OPERATOR for each in versions)
        )

    def turns(self) -> Iterator[datetime]:
        """When what is in force may change: versions begin and end, rates begin."""
        for version in self._recorded.values():
            yield from (each for each in (version.effective_from, version.retired_from) if each is not None)
        for rates in self._rates.values():
            yield from (each.effective_from for each in rates)

    def with_version(self, version: PriceVersion) -> "PriceHistory":
        """The same, had this version held before all others of its owner."""
        rates = [each for known in self._rates.values() for each in known]
        tried = PriceHistory((each for each in self._recorded.values() if each.id != version.id), rates)
        tried._recorded[version.id] = version
        tried._of_org[version.org_id] = [version, *tried._of_org.get(version.org_id, ())]
        return tried

    def recorded(self, version_id: str | None) -> InForce | None:
        """The price list of the configuration that a row of the ledger names, if it was kept."""
        version = self._recorded.get(version_id or "")
        if version is None or version.source is not VersionSource.CONFIGURATION:
            return None
        return self._in_force(version)

    def rate(self, currency: str, at: datetime, base: str = USD) -> Decimal:
        """Units of `currency` for one of `base`, by way of the dollar. Before the first known rate, that one counts.

        Raises LookupError for a currency without any rate.
        """
        return self._for_one_dollar(currency, at) / self._for_one_dollar(base, at)

    def _for_one_dollar(self, currency: str, at: datetime) -> Decimal:
        if currency == USD:
            return Decimal(1)
        rates = self._rates.get(currency)
        if rates is None:
            raise LookupError(f"there is no exchange rate for {currency}")
        return next((each.rate for each in rates if each.effective_from <= at), rates[-1].rate)

    def knows_currency(self, currency: str) -> bool:
        return currency == USD or currency in self._rates

    def _in_force(self, version: PriceVersion) -> InForce:
        found = self._cards.get(version.id)
        if found is None:
            found = self._cards[version.id] = InForce(version, PriceCard(version.terms, version.currency, check=False))
        return found


def _newest_first(version: PriceVersion) -> tuple[float, str]:
    """The latest that has begun comes first; of two that begin together, the one that was made later."""
    began = 0.0 if version.effective_from is None else version.effective_from.timestamp()
    return began, version.id
