"""Files of parameters that others write and read: PyTorch's and safetensors."""
