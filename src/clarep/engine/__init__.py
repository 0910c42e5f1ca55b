"""Artefacts, cost and progress: what every room uses."""
