"""Alerts: which facts about spending, credits, payments and capacity somebody has to be told."""
