"""How much of a region's traffic may go elsewhere while the region is down (architecture document §26.4). Pure.

Without a bound, all that a lost region served would fall upon the next one and take that down too. Each request of a
region earns its model's account `share` of a place elsewhere, up to one whole place; a request that leaves spends one.

Invariant: of any n requests in a row that one process has of a region and model, at most `share` x n + 1 leave; and
when all of them would, at least `share` x n do, rounded down.
"""

_ONE = 1_000_000  # a place, in millionths: exact, where floats would drift
_ACCOUNTS = 10_000

Account = tuple[str, str]  # region, model


class FailoverThrottle:
    def __init__(self, share: float = 1.0) -> None:
        """`share` of each region's requests, 0 to 1."""
        self._share = round(share * _ONE)
        self._start = _ONE if self._share else 0
        self._credits: dict[Account, int] = {}

    def arrived(self, account: Account) -> None:
        """Count a request, wherever it will be served."""
        if len(self._credits) >= _ACCOUNTS and account not in self._credits:
            self._credits.clear()  # names come from tenants
        self._credits[account] = min(_ONE, self._credits.get(account, self._start)) + self._share

    def may_leave(self, account: Account) -> bool:
        """Whether a request that was counted may be served elsewhere; if so, that is spent."""
        credit = self._credits.get(account, self._start)
        if credit < _ONE:
            return False
        self._credits[account] = credit - _ONE
        return True
