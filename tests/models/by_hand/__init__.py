"""Forward passes of one unpadded prompt, written by hand from the weights: no hooks, no transformers.

Each gives every site of every block, by its name, and the logits: what the sites read from transformers must equal.
"""
