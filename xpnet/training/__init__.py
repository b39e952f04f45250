"""Training: what a step changes, one step and K of them, the loop over epochs, and who is called between them."""
