"""The ResNets of common/arch.py in Keras 3: `create_model`, `load`, `export_weights`, `import_weights`,
`optimize`."""

from keras_impl.fast import optimize
from keras_impl.files import load
from keras_impl.resnet import ResNet, create_model
from keras_impl.weights import export_weights, import_weights

__all__ = ["ResNet", "create_model", "export_weights", "import_weights", "load", "optimize"]
