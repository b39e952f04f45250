"""Data on its way to the network: what is admitted, how it is read, in which batches; and data sets."""
