"""Which node serves a request: filter (pool) → score and pick (strategies), over counters kept at this gateway."""
