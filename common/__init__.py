"""What the two implementations share: what a net is, on the ground floor, and above it a wing for each thing that a
person does with one (docs/house.md).

Importing this package imports no framework: neither torch nor keras, tensorflow or jax.
"""

__version__ = "0.1.0"
