"""Analysis of trained SAEs: stitching, meta-SAEs and the meaning of latents, from SAEs, activations and text."""
