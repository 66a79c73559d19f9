"""The policy `vig`: the answer's perplexity without the image minus that with it, largest first (VIG, 2602.17186).

The paper takes the 70 % of the rows with the largest gap, and of these the tokens that need the image (token weights).
Both losses are means over the answer's tokens, without the image that of all layers hidden from the text. The gap is
read as a difference of perplexities; their log-ratio is the policy `no-image-gap`.
"""

GAP = "(exp(loss::DOUBLE + no_image_logprob_drop::DOUBLE) - exp(loss::DOUBLE))"
"""SQL of the gap, null for rows without an image."""
