"""Price lists of others, that estimates compare with: what the same tokens would have cost there.

A list is data with its source and date, and says for each of our models which of theirs it is compared with. One is
shipped; a site may bring its own in the same form.
"""

from importlib import resources

import msgspec

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.pricing.book import PriceEntry


class ReferencePrice(PriceEntry, frozen=True):
    compares_with: str = ""  # their model


class ReferenceList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    source: str
    as_of: str  # a date, or a month
    prices: tuple[ReferencePrice, ...]

    @property
    def shown(self) -> str:
        return f"{self.name}, {self.as_of}"


def shipped_reference() -> ReferenceList:
    return read_reference(resources.files("crosslogic.pricing").joinpath("data/reference_openai.json").read_bytes())


def read_reference(data: bytes) -> ReferenceList:
    """Raises ConfigurationError."""
    try:
        return msgspec.json.decode(data, type=ReferenceList)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"the reference price list cannot be read: {error}") from None
