"""Which model names a caller may use, and what is known of each: one table for all that is served or configured."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from crosslogic.gateway.request import ModelBounds


class ModelSetting(msgspec.Struct, frozen=True):
    """A model as the configuration or the catalogue describes it."""

    id: str
    aliases: tuple[str, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    fallbacks: tuple[str, ...] = ()  # models to serve instead, in this order, when no node can serve this one
    fallbacks_by_environment: Mapping[str, tuple[str, ...]] = {}  # by the environment's name, in place of `fallbacks`


class ModelTable:
    """Names to bounds. Replaced as a whole when the configuration or the fleet changes."""

    def __init__(self) -> None:
        self._settings: dict[str, ModelSetting] = {}
        self._served: tuple[str, ...] = ()
        self._catalogue: Mapping[str, ModelSetting] = {}
        self.by_name: dict[str, ModelBounds] = {}

    def configure(self, settings: Iterable[ModelSetting], catalogue: Mapping[str, ModelSetting] | None = None) -> None:
        """Take over the configured models; `catalogue` gives bounds for those that are served but not configured."""
        self._settings = {setting.id: setting for setting in settings}
        if catalogue is not None:
            self._catalogue = catalogue
        self._rebuild()

    def serve(self, names: Sequence[str]) -> None:
        """Take over the models that the nodes have."""
        if tuple(names) != self._served:
            self._served = tuple(names)
            self._rebuild()

    def is_configured(self, model: str) -> bool:
        return model in self._settings

    def fallbacks(self, model: str, env_name: str) -> tuple[str, ...]:
        """Names of the models that may answer instead of this one, in their order."""
        setting = self._settings.get(model)
        if setting is None:
            return ()
        return setting.fallbacks_by_environment.get(env_name, setting.fallbacks)

    def _rebuild(self) -> None:
        table: dict[str, ModelBounds] = {}
        for name in self._served:
            known = self._catalogue.get(name)
            table[name] = _bounds(known) if known is not None else ModelBounds(name)
        for setting in self._settings.values():
            bounds = _bounds(setting)
            for name in (setting.id, *setting.aliases):
                table[name] = bounds
        self.by_name = table


def _bounds(setting: ModelSetting) -> ModelBounds:
    return ModelBounds(setting.id, setting.context_window, setting.max_output_tokens)
