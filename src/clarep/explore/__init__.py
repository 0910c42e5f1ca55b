"""A page in the browser: what a teacher takes for a class, with sliders."""
