"""The teacher as a witness: which images go against their class's cue, and where the object is."""
