"""What to doubt in the planner's data is said once, and again when it has changed."""

import logging

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.catalog.cards import find_card
from crosslogic.catalog.store import CatalogStore
from crosslogic.jobs.data_health import DataHealthJob
from crosslogic.kernel.clock import ManualClock


async def test_what_is_missing_is_in_the_log_once(engine: AsyncEngine, caplog: pytest.LogCaptureFixture) -> None:
    catalog = CatalogStore(engine, ManualClock())
    job = DataHealthJob(catalog, ManualClock())
    with caplog.at_level(logging.INFO, "crosslogic.jobs.data_health"):
        said = await job.round()
        assert await job.round() == said
        assert [record.getMessage() for record in caplog.records] == [said]
        assert said.startswith("planner data: ")
        assert "crosslogic doctor data" in said
        card = find_card("meta-llama/Llama-3.1-8B-Instruct")
        assert card is not None
        async with engine.begin() as conn:
            await catalog.import_card_in(
                conn,
                type(card)(
                    **{
                        **{name: getattr(card, name) for name in card.__struct_fields__},
                        "id": "acme/new-8b",
                        "aliases": (),
                    }
                ),
            )
        assert await job.round() != said
    assert len(caplog.records) == 2
