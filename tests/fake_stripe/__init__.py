"""A Stripe of our own for tests: stateful, over HTTP, driven by the official SDK, with faults and a clock.

`server.py` speaks HTTP, keeps idempotency keys and makes faults; `state.py` holds objects, time and events;
`payments.py`, `invoices.py` and `meters.py` are the endpoints; `webhooks.py` signs and delivers. Objects have the
shapes of Stripe's own examples (`fixtures3.json`).
"""
