"""Kills, stops, drains and takes away nodes under load, and holds every answer against that of a calm day."""
