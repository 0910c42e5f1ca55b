"""Figures and reports of what a run left on disk."""
