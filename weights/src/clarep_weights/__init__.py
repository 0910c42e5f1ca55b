"""Weights of clarep's larger teachers, which clarep finds by name; no code."""
