"""Who a request came from, behind proxies."""

import pytest

from crosslogic.net.forwarded import client_address
from crosslogic.tenancy.networks import compiled

PROXIES = compiled(["10.0.0.0/8"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.7", [], "203.0.113.7"),
        ("203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["1.2.3.4", "203.0.113.7 ,10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["garbage"], "garbage"),
        ("10.0.0.1", [""], "10.0.0.1"),
    ],
    ids=[
        "no proxy",
        "a caller that forges the header",
        "a proxy's own request",
        "one proxy",
        "a caller that forges through the proxy",
        "two proxies",
        "two header lines",
        "nobody but proxies",
        "no address at all stands for itself",
        "empty",
    ],
)
def test_only_an_unbroken_chain_of_proxies_is_believed(peer: str, forwarded: list[str], client: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    assert client_address(peer, headers, PROXIES.contain) == client
