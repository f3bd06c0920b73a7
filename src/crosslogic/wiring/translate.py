"""From settings to the values that the rooms ask for. Pure; every setting that reaches a room passes here."""

from decimal import Decimal

from crosslogic.cache.model import CachePolicy, Use
from crosslogic.capacity.model import Terms
from crosslogic.catalog.models import load_models
from crosslogic.catalog.regions import City, Region, Regions, load_regions, without
from crosslogic.fleet.health import HealthRules
from crosslogic.fleet.model import BackendKind
from crosslogic.fleet.monitor import StaticNode, Timing
from crosslogic.fleet.registry import Registration
from crosslogic.gateway.models import ModelSetting
from crosslogic.gateway.relay import Timeouts
from crosslogic.gateway.visit import GatewaySettings
from crosslogic.net.forwarded import Trusts
from crosslogic.net.server import ServerLimits
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.pricing.defaults import default_price_list
from crosslogic.scheduling.nearness import Nearness
from crosslogic.settings.commerce import (
    CapacitySettings,
    ModelSettings,
    PriceSettings,
    TierSettings,
)
from crosslogic.settings.limits import LimitsSettings
from crosslogic.settings.model import Settings
from crosslogic.settings.regions import RegionSettings, RegionsSettings
from crosslogic.settings.reload import Reloadable
from crosslogic.settings.sections import NodeSettings
from crosslogic.tenancy.directory import LayerLimits
from crosslogic.tenancy.keys import KeyHasher, key_hasher
from crosslogic.tenancy.model import Plan
from crosslogic.tenancy.networks import compiled
from crosslogic.tenancy.plans import shipped_plans


def key_hasher_of(settings: Settings) -> KeyHasher:
    pepper = settings.auth.key_pepper
    return key_hasher(pepper.get_secret_value().encode() if pepper is not None else None)


def server_limits(settings: Settings) -> ServerLimits:
    server = settings.server
    return ServerLimits(
        max_body_bytes=server.max_body_bytes,
        request_timeout_s=server.header_timeout_s,
        idle_timeout_s=server.idle_timeout_s,
    )


def trusted_proxies(settings: Settings) -> Trusts | None:
    proxies = settings.server.trusted_proxies
    return compiled(proxies).contain if proxies else None


def gateway_settings(settings: Settings | Reloadable, region: str) -> GatewaySettings:
    timeouts = settings.timeouts
    return GatewaySettings(
        timeouts=Timeouts(timeouts.connect_s, timeouts.first_token_s, timeouts.idle_s, timeouts.total_s),
        max_attempts=1 + settings.scheduling.retries,
        retry_backoff_s=settings.scheduling.retry_backoff_s,
        retry_budget_s=settings.scheduling.retry_budget_s,
        retry_wait_s=settings.scheduling.retry_wait_s,
        hedge_after_s=settings.scheduling.hedge_after_s,
        continuations=settings.scheduling.continuations,
        kept_chars=settings.scheduling.continuation_max_chars,
        region=region,
    )


def layer_limits(limits: LimitsSettings) -> LayerLimits:
    return LayerLimits(
        limits.global_.limits(),
        limits.org.limits(),
        limits.env.limits(),
        limits.key.limits(),
        region=limits.region.limits(),
        regions={name: ceilings.limits() for name, ceilings in limits.regions.items()},
    )


def cache_policy(settings: Settings) -> CachePolicy | None:
    """What holds for those who choose nothing; None where there is no cache at all."""
    cache = settings.cache
    return CachePolicy(Use(cache.use), cache.sampled, cache.default_ttl_s) if settings.enable_caching else None


def terms(capacity: CapacitySettings) -> Terms:
    return Terms(capacity.overcommit, capacity.tokens_per_s_per_gpu, capacity.burst_s)


def configured_plans(tiers: tuple[TierSettings, ...]) -> tuple[Plan, ...]:
    return tuple(tier.plan() for tier in tiers)


def plans(tiers: tuple[TierSettings, ...]) -> tuple[Plan, ...]:
    """The shipped plans, then the configured ones, which count where both have an id."""
    return (*shipped_plans(), *configured_plans(tiers))


def default_plan(settings: Settings) -> str:
    """What an org is on that names none. Who runs a cloud for itself wants no ceilings; who sells one says so."""
    return settings.multi_tenant.default_tier or "enterprise"


def regions(settings: RegionsSettings) -> Regions:
    """The shipped regions and the configured ones, whose names come first. Raises ConfigurationError."""
    configured = [_region(region) for region in settings.catalogue]
    replaced = {region.id for region in settings.catalogue}
    names = replaced.union(*(region.members for region in settings.catalogue))
    kept = (without(region, names) for region in load_regions() if region.id not in replaced)
    return Regions((*kept, *configured))


def _region(region: RegionSettings) -> Region:
    city = City(
        region.city or f"{region.id} city",
        region.country,
        region.latitude,
        region.longitude,
        {"any": region.members} if region.members else {},
    )
    return Region(region.id, region.name or region.id, (city,), region.cost_multiplier, region.fallbacks)


def nearness(settings: RegionsSettings, home: str | None, regions: Regions) -> Nearness | None:
    """`home` is where the gateway stands. None: what names no region goes anywhere."""
    by_latency = settings.mode == "latency"
    return Nearness(regions, home, by_latency=by_latency) if by_latency or home else None


def model_settings(models: tuple[ModelSettings, ...]) -> list[ModelSetting]:
    """The configured models; what the configuration leaves open is taken from the catalogue."""
    catalogue = catalogued_models()
    translated = []
    for model in models:
        known = catalogue.get(model.id, ModelSetting(model.id))
        translated.append(
            ModelSetting(
                model.id,
                model.aliases,
                model.context_window or known.context_window,
                model.max_output_tokens or known.max_output_tokens,
                model.fallbacks,
                model.fallbacks_by_environment,
            )
        )
    return translated


def catalogued_models() -> dict[str, ModelSetting]:
    return {
        model.id: ModelSetting(model.id, (), model.context_window, model.max_output_tokens)
        for model in load_models().values()
    }


def price_book(prices: dict[str, PriceSettings], regions_: RegionsSettings) -> PriceBook:
    """Raises ConfigurationError for an inexact price."""
    return PriceBook(price_list(prices, regions_))


def price_list(prices: dict[str, PriceSettings], regions_: RegionsSettings) -> PriceList:
    """The configured prices before the shipped ones; what regions cost, before the shipped guesses by their names."""
    shipped = default_price_list()
    multipliers = regions(regions_).multipliers()
    return PriceList((*price_entries(prices), *shipped.prices), multipliers | shipped.regions)


def price_entries(prices: dict[str, PriceSettings]) -> list[PriceEntry]:
    """The configured prices, in their order."""
    return [
        PriceEntry(
            model=model,
            input=price.input_usd_per_million,
            output=price.output_usd_per_million,
            cached=price.cached_input_usd_per_million,
            regions={region: Decimal(factor) for region, factor in price.region_multipliers.items()},
        )
        for model, price in prices.items()
    ]


def static_node(node: NodeSettings) -> StaticNode:
    return StaticNode(
        Registration(
            endpoint_url=node.endpoint,
            models=node.models,
            backend=node.type or BackendKind.OPENAI,
            region=node.region,
            cloud=node.cloud,
            spot=node.spot,
            gpu_type=node.gpu_type,
            gpu_count=node.gpu_count,
            api_key=node.api_key.get_secret_value() if node.api_key is not None else None,
        ),
        detect_backend=node.type is None,
    )


def simulated_node(url: str) -> StaticNode:
    return StaticNode(Registration(endpoint_url=url, models=(), backend=BackendKind.VLLM))


def health_rules(settings: Settings) -> HealthRules:
    return HealthRules(**settings.fleet.health.model_dump(exclude={"interval_s"}))


def monitor_timing(settings: Settings) -> Timing:
    fleet = settings.fleet
    return Timing(silence_s=fleet.dead_after_s, probe_interval_s=fleet.probe_interval_s, drain_ttl_s=fleet.drain_ttl_s)
