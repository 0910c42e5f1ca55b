"""Studies: recipes, what they build, and runs compared with each other."""
