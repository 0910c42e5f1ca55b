"""What is wrong with an artefact on disk: a small file of checks for every kind."""
