"""Choosing CLARID's setting: a grid, measures of class and background, controls, a choice."""
