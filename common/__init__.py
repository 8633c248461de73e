"""What the two implementations share: the architecture table, its arithmetic, weights and parity.

Importing this package imports no framework: neither torch nor keras, tensorflow or jax.
"""

__version__ = "0.1.0"
