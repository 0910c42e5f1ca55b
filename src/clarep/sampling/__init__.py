"""The sampling ODE of a diffusion model, walked down (decode) and up (invert)."""
