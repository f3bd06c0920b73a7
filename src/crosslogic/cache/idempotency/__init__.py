"""Idempotency-Key on inference: a repeat joins the running request or gets its answer again, and is billed once."""
