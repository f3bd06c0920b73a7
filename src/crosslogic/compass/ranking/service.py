"""The planner of a process: one `Planner` over packaged and imported rows, asked in a thread, one question at a time.

Invariant: the event loop never computes; a question waits for the ones before it, no longer than its deadline, and no
more than a few wait. Imported benchmarks count within `FRESH_S`, imported models and prices at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.catalog.cards import Cards, in_force, packaged_cards
from crosslogic.catalog.prices import GpuPrice
from crosslogic.catalog.store import CatalogStore
from crosslogic.compass.capacity.pooling import Pool
from crosslogic.compass.capacity.rows import MeasuredRow, packaged_rows
from crosslogic.compass.capacity.step_model import StepModel, step_model
from crosslogic.compass.knowledge.model import Benchmark
from crosslogic.compass.knowledge.sql import KnowledgeBase
from crosslogic.compass.ranking import offers
from crosslogic.compass.ranking.model import Candidate, Recommendation
from crosslogic.compass.ranking.planner import Bias, Planner, configuration_of
from crosslogic.compass.scenarios.change import Change, Comparison, what_if
from crosslogic.compass.scenarios.risk import Risk, Sensitivity, monte_carlo, sensitivities
from crosslogic.compass.scenarios.sql import ScenariosSql
from crosslogic.compass.specification.model import Specification
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, Unavailable

FRESH_S = 60.0
DEADLINE_S = 60.0
MOST_WAITING = 8

T = TypeVar("T")


class PlanningService:
    """Raises InvalidRequest for a specification that makes no sense, Unavailable when too many ask at once."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self.knowledge = KnowledgeBase(engine, clock)
        self.scenarios = ScenariosSql(engine)
        self.clock = clock
        self._catalog = CatalogStore(engine, clock)
        self._cards = packaged_cards()
        self._prices: tuple[GpuPrice, ...] = ()
        self._version: tuple[int | None] | None = None  # of the catalogue that was read; None: it was not
        self._reading = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._asking = 0
        self._planner: Planner | None = None
        self._known: tuple[tuple[MeasuredRow, ...], tuple[Benchmark, ...]] = ((), ())
        self._read_at: float | None = None

    async def recommend(self, spec: Specification, biases: Mapping[str, Bias] | None = None) -> Recommendation:
        """`biases`: what outcomes taught whoever asks."""
        return await self._ask(lambda planner: (planner.taught(biases) if biases else planner).recommend(spec))

    async def at_a_glance(self, spec: Specification) -> Recommendation:
        """Read off the surface alone; none of the best is run in the scheduler once more."""
        return await self._ask(lambda planner: planner.recommend(spec, confirm=0))

    async def step_model(self, candidate: Candidate, prompt: float, output: float) -> StepModel:
        """Of one candidate at these lengths, without what was learnt."""
        return await self._ask(
            lambda planner: step_model(planner.pool, configuration_of(candidate), prompt, max(2.0, output))
        )

    async def compare(self, spec: Specification, change: Change) -> Comparison:
        """The recommendation as it is, and that deployment with the change."""

        def both(planner: Planner) -> Comparison:
            best = planner.recommend(spec, confirm=0).best
            return what_if(planner, spec, change, option=best)

        return await self._ask(both)

    async def risk(self, spec: Specification, draws: int) -> tuple[Recommendation, Risk, list[Sensitivity]]:
        """How sure the best option is. Raises Conflict where there is none."""

        def ask(planner: Planner) -> tuple[Recommendation, Risk, list[Sensitivity]]:
            found = planner.recommend(spec, confirm=0)
            if found.best is None:
                raise Conflict(f"there is nothing to be sure of: {found.advice[0] if found.advice else 'no option'}")
            return (
                found,
                monte_carlo(planner, spec, found.best, draws=draws),
                sensitivities(planner, spec, found.best),
            )

        return await self._ask(ask)

    async def _ask(self, question: Callable[[Planner], T]) -> T:
        if self._asking >= MOST_WAITING:
            raise Unavailable("too many questions to the planner at once; ask again in some seconds")
        self._asking += 1
        try:
            async with asyncio.timeout(DEADLINE_S), self._turn:
                in_force(await self.cards())
                planner = await self._fresh()
                return await asyncio.to_thread(question, planner)  # which takes the models in force with it
        except TimeoutError:
            raise Unavailable(f"the planner found no answer within {DEADLINE_S:.0f} s; ask again later") from None
        finally:
            self._asking -= 1

    async def cards(self) -> Cards:
        """The models that there are, those that were imported a moment ago among them."""
        async with self._reading:
            version = (await self._catalog.version(),)
            if version != self._version:
                cards, prices = await self._catalog.cards(), (await self._catalog.prices()).prices
                self._cards, self._prices = cards, offers.with_list_prices(prices)
                self._version, self._planner = version, None
            return self._cards

    async def _fresh(self) -> Planner:
        now_s = self.clock.monotonic_s()
        if self._planner is None or self._read_at is None or now_s - self._read_at > FRESH_S:
            rows, quotable = await self.knowledge.measured_rows(), await self.knowledge.with_p95()
            if self._planner is None or (rows, quotable) != self._known:
                every = tuple(dict.fromkeys((*packaged_rows(), *rows)))
                prices = self._prices
                self._planner = await asyncio.to_thread(lambda: Planner(Pool(every), prices, benchmarks=quotable))
                self._known = (rows, quotable)
            self._read_at = now_s
        return self._planner
