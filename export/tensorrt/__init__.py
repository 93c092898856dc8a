"""ONNX graphs to TensorRT engines. Needs TensorRT alone: neither torch nor onnx, and no GPU for what is portable."""
