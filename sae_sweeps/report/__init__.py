"""The report of sweeps: one HTML file that opens from disk and asks nothing of a network."""
