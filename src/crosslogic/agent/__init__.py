"""The program beside an engine: joins the fleet, keeps the engine running, and says how it does."""
