"""xpnet beside its peers, in one run: `python -m benchmarks cpu`, `gpu`, `guard`, `report`."""
