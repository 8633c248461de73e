"""How fast, in how much memory, and the net made ready for inference.

In come rows, packages and modes; each contender runs alternating with the others in processes of their own. Out come
ratios of medians, and the checks that hold an optimised net against the plain one.
"""
