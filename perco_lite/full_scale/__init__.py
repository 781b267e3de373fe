"""The same codec around Stable Diffusion, for those with a GPU."""
