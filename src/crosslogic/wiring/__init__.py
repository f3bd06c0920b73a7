"""The only place that builds objects. What a process does not run it does not import: nothing is gathered here."""
