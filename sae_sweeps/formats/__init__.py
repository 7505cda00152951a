"""SAE files: the format that they are saved in, and others'."""

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"  # of a folder that holds an SAE
