"""What trained SAEs have found: pure functions of SAEs, activations and text."""
