"""JSON web tokens of an identity provider, where the settings accept them (`auth.type: jwt`)."""

from crosslogic.kernel.clock import SystemClock
from crosslogic.settings.model import Settings
from crosslogic.tenancy.jwks import HttpFetch, IssuerKeys
from crosslogic.tenancy.jwt import JwtVerifier
from crosslogic.wiring.process import Background


def new_verifier(settings: Settings, background: Background) -> JwtVerifier | None:
    """None where only keys count. Raises ConfigurationError."""
    auth = settings.auth
    if auth.type != "jwt":
        return None
    clock = SystemClock()
    issuer_keys = None
    if auth.jwt.jwks_url is not None:
        fetch = HttpFetch(auth.jwt.jwks_url, timeout_s=auth.jwt.jwks_timeout_s)
        issuer_keys = IssuerKeys(fetch, clock, max_age_s=auth.jwt.jwks_max_age_s)
        background.start("issuer keys", issuer_keys.run())
    return JwtVerifier(
        auth.jwt.rules(),
        clock,
        secret=auth.secret.get_secret_value().encode() if auth.secret is not None else None,
        issuer_keys=issuer_keys,
        algorithms=auth.jwt.algorithms or None,
    )
