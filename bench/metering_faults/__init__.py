"""Is every token billed once, whatever dies? Real processes under faults, held against what callers and nodes saw."""
