"""The names of the files and folders that hold an SAE."""

SAE_FOLDER = "sae"  # in the folder of a point
DIRECTIONS_OF = "decoder_directions_of"  # key in the metadata of a meta-SAE
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"  # in the folder of an SAE
