"""From settings to the values that the rooms ask for. Pure; every setting that reaches a room passes here."""

from decimal import Decimal

from crosslogic.catalog.models import load_models
from crosslogic.fleet.model import BackendKind
from crosslogic.fleet.monitor import StaticNode, Timing
from crosslogic.fleet.registry import Registration
from crosslogic.gateway.models import ModelSetting
from crosslogic.gateway.relay import Timeouts
from crosslogic.gateway.visit import GatewaySettings
from crosslogic.net.server import ServerLimits
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.pricing.defaults import default_price_list
from crosslogic.settings.commerce import ModelSettings, PriceSettings, TierSettings
from crosslogic.settings.model import Settings
from crosslogic.settings.reload import Reloadable
from crosslogic.settings.sections import LimitsSettings, NodeSettings
from crosslogic.tenancy.directory import LayerLimits
from crosslogic.tenancy.keys import KeyHasher, key_hasher
from crosslogic.tenancy.model import Plan
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


def gateway_settings(settings: Settings | Reloadable) -> GatewaySettings:
    timeouts = settings.timeouts
    return GatewaySettings(
        timeouts=Timeouts(timeouts.connect_s, timeouts.first_token_s, timeouts.idle_s, timeouts.total_s),
        max_attempts=1 + settings.scheduling.retries,
    )


def layer_limits(limits: LimitsSettings) -> LayerLimits:
    return LayerLimits(limits.global_.limits(), limits.org.limits(), limits.env.limits(), limits.key.limits())


def configured_plans(tiers: tuple[TierSettings, ...]) -> tuple[Plan, ...]:
    return tuple(tier.plan() for tier in tiers)


def plans(tiers: tuple[TierSettings, ...]) -> tuple[Plan, ...]:
    """The shipped plans, then the configured ones, which count where both have an id."""
    return (*shipped_plans(), *configured_plans(tiers))


def default_plan(settings: Settings) -> str:
    """What an org is on that names none. Who runs a cloud for itself wants no ceilings; who sells one says so."""
    return settings.multi_tenant.default_tier or "enterprise"


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
            )
        )
    return translated


def catalogued_models() -> dict[str, ModelSetting]:
    return {
        model.id: ModelSetting(model.id, (), model.context_window, model.max_output_tokens)
        for model in load_models().values()
    }


def price_book(prices: dict[str, PriceSettings]) -> PriceBook:
    """The configured prices before the shipped ones. Raises ConfigurationError for an inexact price."""
    shipped = default_price_list()
    configured = [
        PriceEntry(
            model=model,
            input=price.input_usd_per_million,
            output=price.output_usd_per_million,
            cached=price.cached_input_usd_per_million,
            regions={region: Decimal(factor) for region, factor in price.region_multipliers.items()},
        )
        for model, price in prices.items()
    ]
    return PriceBook(PriceList((*configured, *shipped.prices), shipped.regions))


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


def monitor_timing(settings: Settings) -> Timing:
    fleet = settings.fleet
    return Timing(silence_s=fleet.dead_after_s, probe_interval_s=fleet.probe_interval_s)
