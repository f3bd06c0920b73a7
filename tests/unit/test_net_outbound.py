"""Where requests of tenants' making may go: the internet, and nowhere else."""

import ipaddress

import httpx
import pytest

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.net.outbound import AddressRefused, OutboundClient, check_url, is_not_metadata, is_public

PRIVATE = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.1.2.3",
    "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.170", "192.0.2.1",
    "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:192.168.1.1", "100::1",
    "2001:db8::1", "2002:7f00:1::", "2002:a00:1::", "2002:a9fe:a9fe::", "2002:c0a8:1::", "64:ff9b::7f00:1",
    "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "fc00::1", "fd00:ec2::254", "fd12:3456::1", "fe80::1",
    "febf::1", "fec0::1", "ff02::1", "ff05::2", "ff0e::1",
)  # fmt: skip
PUBLIC = ("1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "192.169.0.1", "2606:4700::1111", "::ffff:8.8.8.8")
LITERALS = [f"https://[{host}]/" if ":" in host else f"https://{host}/hook" for host in PRIVATE]
NO_URLS = (
    "", "x", "https://", "https:///path", "http://example.com/", "ftp://example.com/", "file:///etc/passwd",
    "gopher://127.0.0.1/", "javascript:alert(1)", "//example.com/", "https://user@example.com/",
    "https://user:pw@example.com/", "https://example.com@127.0.0.1/", "https://example.com:0/",
    "https://example.com:99999/", "https://example.com:port/", "https://exa mple.com/", "https://example.com/\r\nx: y",
    "https://example.com/\x00", "https://exämple.com/", "https://[::1", "https://[nonsense]/", "HTTP://EXAMPLE.COM/",
    "data:text/plain,x", "unix:///var/run/docker.sock", "https://:443/", "https:/example.com", "ws://example.com/",
)  # fmt: skip
# How programs write an address so that a check of text misses it; the system's resolver knows what they mean.
DISGUISED = (
    "0x7f000001", "2130706433", "017700000001", "127.1", "0177.0.0.1", "0x7f.1", "localhost", "localhost.",
    "LOCALHOST", "127.0.0.1.", "0", "0.0", "127.0.1", "0xA9FEA9FE", "2852039166", "[::ffff:7f00:1]",
    "[0:0:0:0:0:0:0:1]", "[::ffff:a9fe:a9fe]", "ip6-localhost", "169.254.43518",
)  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_no_host_of_the_internet_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_hosts_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("url", [*LITERALS, *NO_URLS])
def test_what_leads_to_no_public_host_is_refused_when_it_is_given(url: str) -> None:
    with pytest.raises(InvalidRequest):
        check_url(url)


def test_a_good_url_stays_as_it_is() -> None:
    url = "https://hooks.example.com:8443/a/b?c=d"
    assert check_url(url) == url


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "ff02::1"])
def test_sites_with_hosts_of_their_own_still_do_not_reach_metadata_services(address: str) -> None:
    assert not is_not_metadata(ipaddress.ip_address(address))
    assert is_not_metadata(ipaddress.ip_address("10.0.0.7"))


@pytest.mark.parametrize("host", DISGUISED)
async def test_a_disguised_address_is_not_connected_to(host: str) -> None:
    """By the real resolver of this machine: a name that it does not know is no way in either."""
    client = OutboundClient()
    try:
        with pytest.raises((AddressRefused, OSError)):
            await client.post(f"http://{host}:9/", b"", {})
    except httpx.InvalidURL:
        pass
    finally:
        await client.close()


@pytest.mark.parametrize("answers", [["10.0.0.1"], ["93.184.216.34", "127.0.0.1"], ["fe80::1%eth0"], []])
async def test_one_private_address_refuses_the_name(answers: list[str]) -> None:
    async def resolver(host: str, port: int) -> list[str]:
        return answers

    client = OutboundClient(resolver=resolver)
    try:
        with pytest.raises(AddressRefused):
            await client.post("https://hooks.example.com/", b"", {})
    finally:
        await client.close()


async def test_a_name_is_asked_for_anew_each_time_and_its_answer_is_what_is_connected_to() -> None:
    """Rebinding: public at first, then our own machine."""
    asked: list[str] = []

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    client = OutboundClient(resolver=resolver)
    try:
        for _ in range(2):
            with pytest.raises(AddressRefused):
                await client.post("https://rebinding.example/", b"", {})
    finally:
        await client.close()
    assert asked == ["rebinding.example"] * 2
