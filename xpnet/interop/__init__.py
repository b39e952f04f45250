"""Where xpnet meets its neighbours: scikit-learn, ONNX, PyTorch's weights. Each file needs its own optional extra."""
