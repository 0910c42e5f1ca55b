"""CLARID: from labelled images to canonical latent representations."""
