"""What a key may not be used for: the checks that depend on the request, not on the key alone. Pure.

Costs a tenth of a microsecond for a key without restrictions. Whether the key works at all (suspended, expired)
stands in `Principal.refusal` and `expires_at_s`, and is asked before.
"""

from typing import Final

from crosslogic.tenancy.model import Feature, Principal

MANAGEMENT: Final = "management"  # the name of the management API among the endpoints of a key

PLAN_WITHOUT_API: Final = "plan_without_api_access"
ENDPOINT_NOT_ALLOWED: Final = "endpoint_not_allowed"
MODEL_NOT_ALLOWED: Final = "model_not_allowed"
REGION_NOT_ALLOWED: Final = "region_not_allowed"
REFUSALS: Final = (PLAN_WITHOUT_API, ENDPOINT_NOT_ALLOWED, MODEL_NOT_ALLOWED, REGION_NOT_ALLOWED)


def comes_from_elsewhere(principal: Principal, client_ip: str | None) -> bool:
    """The key is not good at this address. Ask this before anything else of a key is told, and answer as to nobody:
    whoever presents a stolen key learns nothing of it, not even that it is one."""
    return principal.networks is not None and not principal.networks.contain(client_ip)


def refusal_of(
    principal: Principal,
    endpoint_name: str,
    model: str | None = None,
) -> str | None:
    """Why this request of this key is refused, one of `REFUSALS`, or None. Management happens in no region."""
    if not principal.restricted:
        return None
    if principal.features is not None and Feature.API_ACCESS not in principal.features:
        return PLAN_WITHOUT_API
    if principal.allowed_endpoints is not None and endpoint_name not in principal.allowed_endpoints:
        return ENDPOINT_NOT_ALLOWED
    if model is not None and principal.allowed_models is not None and model not in principal.allowed_models:
        return MODEL_NOT_ALLOWED
    if not principal.region_allowed and endpoint_name != MANAGEMENT:
        return REGION_NOT_ALLOWED
    return None
