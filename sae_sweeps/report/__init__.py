"""The report of sweeps: one HTML file that opens from disk and needs no network."""
