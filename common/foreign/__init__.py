"""Other libraries' names for the canonical weights: one rule list a library, none a model."""
