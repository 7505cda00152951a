"""The names of the files and folders that hold an SAE."""

SAE_FOLDER = "sae"  # name of the SAE's folder, in the folder of a point
DIRECTIONS_OF = "decoder_directions_of"  # key in the metadata of a meta-SAE: the SAE that has the decoder directions
CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"  # names in the folder of an SAE
