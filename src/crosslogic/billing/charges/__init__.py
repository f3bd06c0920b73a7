"""What usage costs its org: a charge for each row of the ledger, and fees that no request causes."""
