"""Which addresses a node may have: never one that only machines inside may ask."""

import pytest

from crosslogic.fleet.endpoint import checked_endpoint
from crosslogic.kernel.errors import InvalidRequest


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
        ("http://10.0.0.7:8000/", "http://10.0.0.7:8000"),
        ("https://Node.Example.com/v1", "https://node.example.com"),
        ("https://node.example.com/v1/", "https://node.example.com"),
        ("http://proxy:8080/pods/7/v1", "http://proxy:8080/pods/7"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://100.64.1.2:8000", "http://100.64.1.2:8000"),  # a tailnet
    ],
)
def test_addresses_are_stored_in_one_form(given: str, stored: str) -> None:
    assert checked_endpoint(given) == stored
    assert checked_endpoint(stored) == stored


@pytest.mark.parametrize(
    "url",
    [
        "",
        "node:8000",
        "ftp://node/x",
        "file:///etc/passwd",
        "http://",
        "http://:8000",
        "http://node:0",
        "http://node:99999",
        "http://node:x",
        "http://user:secret@node:8000",
        "http://user@node:8000",
        "http://node:8000/?key=secret",
        "http://node:8000/#x",
        "http://node :8000",
        "http://node\r\nhost: x",
        "http://node\\@other/",
        "http://[::1",
        "http://node/" + "x" * 3000,
    ],
)
def test_what_is_no_plain_http_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked_endpoint(url)
    assert refused.value.param == "endpoint_url"
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "2852039166",
        "0xa9fea9fe",
        "0xa9.254.169.254",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.254.169.254.",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fd00:ec2::254]",
        "[2002:a9fe:a9fe::]",
        "metadata.google.internal",
        "METADATA.google.internal.",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
    ],
)
def test_metadata_services_are_refused_however_they_are_written(host: str) -> None:
    with pytest.raises(InvalidRequest):
        checked_endpoint(f"http://{host}/latest/meta-data")
    assert checked_endpoint(f"http://{host}:80", allow_link_local=True)


@pytest.mark.parametrize(
    ("given", "stored"), [("tunnel://GPU-7", "tunnel://GPU-7"), ("tunnel://GPU-7/llm/v1/", "tunnel://GPU-7/llm")]
)
def test_a_nodes_own_tunnel_is_an_address(given: str, stored: str) -> None:
    assert checked_endpoint(given, "GPU-7") == stored


@pytest.mark.parametrize(
    ("given", "node_id"),
    [
        ("tunnel://gpu-8", "gpu-7"),
        ("tunnel://gpu-7", None),
        ("tunnel://", "gpu-7"),
        ("tunnel://gpu-7?x", "gpu-7"),
        ("tunnel://user@gpu-7", "gpu-7"),
        ("tunnel://gpu-7:80", "gpu-7"),
    ],
)
def test_nobody_registers_with_the_tunnel_of_another_node(given: str, node_id: str | None) -> None:
    with pytest.raises(InvalidRequest):
        checked_endpoint(given, node_id)
