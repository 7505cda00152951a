"""The formats of SAE files: one file per library, a table of them, and how a format is detected."""
