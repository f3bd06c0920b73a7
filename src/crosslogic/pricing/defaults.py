"""The price list that is in force until the configuration brings its own: architecture document §35.1."""

from importlib import resources

import msgspec

from crosslogic.pricing.book import PriceList


def default_price_list() -> PriceList:
    data = resources.files("crosslogic.pricing").joinpath("data/prices.json").read_bytes()
    return msgspec.json.decode(data, type=PriceList)
