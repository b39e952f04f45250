"""One small file a contender, written as its users would write it well.

Each has `prepare(settings) -> (epoch, predict)`: everything is loaded and placed; `epoch()` trains once over all
samples in a new random order, returns when it is done, and returns the epoch's mean training loss; `predict(images)`
returns the labels of uint8 images. What a contender may scale or convert once, it does in `prepare`.
"""
