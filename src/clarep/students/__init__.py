"""Classifiers: our own, those of other libraries, and any torch module."""
