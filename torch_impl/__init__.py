"""The ResNets of common/arch.py in PyTorch: `create_model`, `load`, `export_weights`, `import_weights`,
`optimize`."""

from torch_impl.fast import optimize
from torch_impl.files import load
from torch_impl.resnet import ResNet, create_model
from torch_impl.weights import export_weights, import_weights

__all__ = ["ResNet", "create_model", "export_weights", "import_weights", "load", "optimize"]
