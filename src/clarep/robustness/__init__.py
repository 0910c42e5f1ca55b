"""What a student withstands: attacks, corruptions, backgrounds, calibration, focus."""
