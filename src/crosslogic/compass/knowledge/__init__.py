"""What was measured: benchmark rows from files, from live runs and with the product, by exact traffic."""
