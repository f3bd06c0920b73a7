"""The price lists of others that estimates compare with."""

from pathlib import Path

import pytest

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.pricing.reference import read_reference, shipped_reference
from crosslogic.settings.commerce import BillingSettings, PriceSettings
from crosslogic.wiring.money import _reference


def test_the_shipped_list_says_where_it_is_from_and_has_a_price_for_every_model() -> None:
    found = shipped_reference()
    assert (found.name, bool(found.source), found.as_of[:2]) == ("OpenAI", True, "20")
    book = PriceBook(PriceList(found.prices))
    for model, compared in {
        "meta-llama/Llama-3.1-8B-Instruct": "gpt-4o-mini",
        "meta-llama/Llama-3.1-70B-Instruct": "gpt-4o",
        "Qwen/Qwen2.5-72B-Instruct": "gpt-4o",
        "Qwen/Qwen2.5-32B-Instruct": "gpt-4.1-mini",
        "Qwen/Qwen2.5-7B-Instruct": "gpt-4o-mini",
        "anything": "gpt-4o-mini",
    }.items():
        theirs = next(each for each in found.prices if each.compares_with == compared)
        assert book.price(model, "").input_pusd == theirs.input * 10**6, model


def test_the_configurations_prices_come_before_those_of_the_list(tmp_path: Path) -> None:
    own = {"model-a": PriceSettings(input_usd_per_million=1, output_usd_per_million=2)}  # type: ignore[arg-type]
    book, name = _reference(BillingSettings(reference_prices=own))
    assert book is not None
    assert (name or "").startswith("OpenAI, 20")
    assert (book.price("model-a", "").input_pusd, book.price("model-b", "").input_pusd) == (10**6, 150_000)
    assert _reference(BillingSettings(reference_list="none")) == (None, None)
    book, name = _reference(BillingSettings(reference_list="none", reference_prices=own))
    assert book is not None
    assert (name, book.price("model-b", "").known) == ("the configuration", False)


def test_a_site_brings_its_own_list(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(
        '{"name":"Acme","source":"acme.example","as_of":"2026-11-01","prices":[{"model":"*","input":"3","output":"4"}]}'
    )
    book, name = _reference(BillingSettings(reference_file=path))
    assert book is not None
    assert (name, book.price("x", "").output_pusd) == ("Acme, 2026-11-01", 4 * 10**6)
    for wrong in ("{}", "[", '{"name":"A","source":"b","as_of":"c","prices":[{"model":"*"}]}'):
        with pytest.raises(ConfigurationError):
            read_reference(wrong.encode())
    with pytest.raises(ConfigurationError, match="reference_file"):
        _reference(BillingSettings(reference_file=tmp_path / "absent.json"))
