"""The formats of SAE files: one file per library, and how they are told apart, read and written."""
