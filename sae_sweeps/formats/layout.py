"""The names of the files and folders that hold an SAE."""

SAE_FOLDER = "sae"  # of a point
OF_DIRECTIONS = "decoder_directions_of"  # in the metadata of a meta-SAE
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"  # of a folder that holds an SAE
