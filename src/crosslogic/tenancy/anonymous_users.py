"""Where keys are off (`enable_auth: false`): everybody is one tenant without a key.

Invariant: whoever calls, and with whatever key, is the same principal, under the configured limits of each layer.
"""

from crosslogic.cache.model import CachePolicy
from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.limits.model import Unit
from crosslogic.limits.scopes import reservable_tokens, scopes_of
from crosslogic.tenancy.bounds import bounds_of
from crosslogic.tenancy.directory import LayerLimits
from crosslogic.tenancy.model import Principal, Role


class AnonymousUsers:
    """`UserManager` that knows nobody and admits everybody."""

    def __init__(self, limits: LayerLimits, cache: CachePolicy, region: str) -> None:
        self._cache = cache
        self._region = region
        self.set_limits(limits)

    def set_limits(self, limits: LayerLimits) -> None:
        scopes = scopes_of(
            limits.global_,
            region=self._region,
            region_limits=limits.of_region(self._region),
            org_id="anonymous",
            org_limits=limits.org,
            env_id="anonymous",
            env_limits=limits.env,
            key_id="anonymous",
            key_limits=limits.key,
        )
        self._principal = Principal(
            org_id=OrgId("anonymous"),
            org_name="anonymous",
            env_id=EnvId("anonymous"),
            env_name="anonymous",
            key_id=KeyId("anonymous"),
            role=Role.DEVELOPER,
            region=None,
            allowed_models=None,
            scopes=scopes,
            reservable_tokens=reservable_tokens(scopes),
            reservable_output_tokens=reservable_tokens(scopes, Unit.OUTPUT_TOKENS),
            bounds=bounds_of(scopes),
            cache=self._cache,
        )

    def resolve(self, token: bytes) -> Principal:
        return self._principal

    async def authenticate(self, token: bytes) -> Principal:
        return self._principal
