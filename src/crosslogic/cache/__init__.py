"""Answers that are given again: the response cache, and the replay of requests that carry an Idempotency-Key."""
