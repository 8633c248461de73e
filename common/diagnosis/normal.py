"""A tape in normal form: what two spellings of one function share, and nothing that has no meaning.

What comes out has the tape's records, and of those only what `parse.py` understands:

1. Identities, casts to the same and reshapes that change nothing are gone.
2. Every padding is (before, after) of a convolution or a pooling, with the value of its border; a padding that can't be
   part of one stays as `pad`. A fused padding of zeros before a max pooling is its border of 0.
3. The mean over all positions has one spelling, `mean` over S without keepdims, with `at`: the only size at which it is
   one, or None. So have adaptive pooling to 1, a pooling as wide as its input, and means with flattening behind.
4. `flatten` is a reshape to N and all the rest, with its order, which is None where there is one position.
5. Pooling of window 1, strided slices and strided identities are `subsample`.
6. A split, convolutions of the parts and a concatenation is one convolution with groups.
7. Zero channels, by padding or by concatenation, are `pad_channels` with before and after.
8. A sum of sums is one `add` of several inputs; a product with a gate is `mul`; of tensors concatenated alike, one
   `concat`.
9. Constants are `shift` and `scale`; a channel order is `take`.
10. A linear layer over channels that have one position is `linear`, also where it is spelt as a 1x1 convolution.
11. Nothing is folded: a norm stays a norm, whatever comes before it.
12. What no output needs is gone, and told apart.
"""
