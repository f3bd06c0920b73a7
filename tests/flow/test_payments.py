"""The whole product takes money: a real process, Stripe's official SDK, a fake Stripe; and is killed in between."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from crosslogic.cli.main import run
from tests.fake_stripe import server, webhooks
from tests.fake_stripe.server import LOST_REPLY, FakeStripe
from tests.flow.clouds import EmbeddedCloud
from tests.flow.conftest import start_up
from tests.flow.processes import eventually

METHODS, PAYMENTS = "/api/v1/billing/payment-methods", "/api/v1/billing/payments"


@contextmanager
def stripe_in_a_thread() -> Iterator[FakeStripe]:
    fake, loop, ready, stop = FakeStripe(), asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        fake.state.now_s = time.time()
        async with fake.serve():
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    try:
        yield fake
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def paying(directory: Path, fake: FakeStripe) -> EmbeddedCloud:
    env = {
        "CROSSLOGIC_ENABLE_PAYMENTS": "true",
        "CROSSLOGIC_PAYMENTS__PROVIDER": "stripe",
        "CROSSLOGIC_PAYMENTS__API_KEY": server.API_KEY,
        "CROSSLOGIC_PAYMENTS__WEBHOOK_SECRET": webhooks.SECRET,
        "CROSSLOGIC_PAYMENTS__BASE_URL": fake.base_url,
        "CROSSLOGIC_PAYMENTS__NETWORK_RETRIES": "0",
    }
    return start_up(directory, "--nodes", 0, env=env)


def command(cloud: EmbeddedCloud, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def of(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        key = cloud.admin.headers["authorization"].removeprefix("Bearer ")
        assert run([*arguments, "--url", cloud.url, "--admin-key", key]) == code
        said = capsys.readouterr().out
        return json.loads(said) if "--json" in arguments else said

    return of


def own_client(cloud: EmbeddedCloud) -> httpx.Client:
    body = {"org": "payer", "environment": "prod", "name": "billing", "role": "admin"}
    token = cloud.admin.post("/admin/keys", json=body).raise_for_status().json()["key"]
    return httpx.Client(base_url=cloud.url, headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False)


def test_money_is_taken_refunded_and_compared_and_a_kill_in_between_takes_none_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stripe_in_a_thread() as fake:
        cloud = paying(tmp_path, fake)
        try:
            crosslogic = command(cloud, capsys)
            crosslogic("orgs", "create", "payer")
            own = own_client(cloud)
            begun = own.post(METHODS, json={"kind": "card"}).raise_for_status().json()
            fake.payments.complete_setup(begun["setup_ref"], fake.payments.new_method())
            own.post(f"{METHODS}/confirm", json={"setup_ref": begun["setup_ref"]}).raise_for_status()
            body = {"amount_minor": 900, "currency": "usd"}
            paid = own.post(PAYMENTS, json=body).raise_for_status().json()
            assert paid["status"] == "succeeded"
            refund = crosslogic("payments", "refund", paid["id"], "--amount-minor", "200", "--json")
            assert (refund["status"], refund["amount"]) == ("succeeded", "2.00")
            assert paid["id"] in crosslogic("payments", "list", "--org", "payer")

            # Stripe takes the money, its answer is lost, and then we are killed
            fake.faults.order(LOST_REPLY, "/v1/payment_intents")
            unsure = own.post(PAYMENTS, json=body, headers={"Idempotency-Key": "order-1"}).raise_for_status().json()
            assert unsure["status"] == "unknown"
            cloud.program.kill()
            cloud = paying(tmp_path, fake)
            crosslogic = command(cloud, capsys)

            def settled() -> bool:
                row = crosslogic("payments", "show", unsure["id"], "--json")
                return bool(row["status"] == "succeeded")

            eventually(settled, timeout_s=60)
            assert sum(charge["amount_captured"] for charge in fake.state.all("charge")) == 1800
            event = next(each for each in fake.state.events if each["type"] == "payment_intent.succeeded")
            payload = webhooks.payload_of(event)
            signed = {"stripe-signature": webhooks.signature(payload, int(time.time()))}
            told = httpx.post(f"{cloud.url}/webhooks/stripe", content=payload, headers=signed, trust_env=False)
            assert told.json() == {"received": True, "known": False}
            forged = httpx.post(f"{cloud.url}/webhooks/stripe", content=payload + b" ", headers=signed, trust_env=False)
            assert forged.status_code == 400
            eventually(lambda: not crosslogic("payments", "events", "--failing", "--json"), timeout_s=30)
            today = time.strftime("%Y-%m-%d", time.gmtime())
            assert "all books agree" in crosslogic("reconcile", "run", "--day", today, "--org", "payer")
            log = cloud.program.log.read_text()
            assert server.API_KEY not in log
            assert webhooks.SECRET not in log
        finally:
            cloud.program.kill()
