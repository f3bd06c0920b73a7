"""Becoming a node: one request to control's management API, signed with the join token (`fleet/join_token.py`).

Invariant: the token is not in the request, and an answer whose CA is not the one in the token is not believed.
"""

from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx

from crosslogic.agent.papers import Papers, ca_fingerprint, encoded, new_key
from crosslogic.fleet.join_token import read_token
from crosslogic.kernel.errors import ConfigurationError, Unavailable

JOIN_TIMEOUT_S = 15.0


async def join(control_url: str, token_text: str, node_id: str = "") -> Papers:
    """Raises ConfigurationError when control refuses, Unavailable when it does not answer."""
    token, key = read_token(token_text), new_key()
    body = {
        "public_key": encoded(token.public_key),
        "signature": encoded(token.signature(key.csr_der, node_id)),
        "csr": encoded(key.csr_der),
        "node_id": node_id,
    }
    url = control_url.rstrip("/").removesuffix("/v1")
    try:
        async with httpx.AsyncClient(timeout=JOIN_TIMEOUT_S, trust_env=False) as http:
            answer = await http.post(f"{url}/nodes/join", json=body)
        said = answer.json()
    except (httpx.UnsupportedProtocol, httpx.InvalidURL):
        raise ConfigurationError(f"{control_url!r} is no URL; write --control http://host:port") from None
    except httpx.HTTPError:
        raise Unavailable(f"control does not answer at {url}") from None
    except ValueError:
        raise ConfigurationError(f"{url} is not control: its answer is not JSON") from None
    if answer.status_code >= 500:
        raise Unavailable(f"control at {url} answers {answer.status_code}")
    if not answer.is_success:
        message = said.get("error", {}).get("message", answer.status_code) if isinstance(said, dict) else ""
        raise ConfigurationError(f"control does not let this machine join: {message}")
    if ca_fingerprint(said["ca"]) != token.ca_fingerprint:
        raise ConfigurationError(f"whoever answers at {url} is not the control that made this token")
    return Papers(
        node_id=said["node_id"],
        region=said["region"],
        key_pem=key.key_pem,
        certificate_pem=said["certificate"],
        ca_pem=said["ca"],
        control_host=said["agent_host"] or urlsplit(url).hostname or "",
        control_port=said["agent_port"],
        got_at=datetime.now(UTC),
    )
