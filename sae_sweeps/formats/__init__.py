"""SAE files: the format that they are saved in, and others'."""

SAE_FOLDER = "sae"  # of a point
OF_DIRECTIONS = "decoder_directions_of"  # in the metadata of a meta-SAE
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"  # of a folder that holds an SAE
