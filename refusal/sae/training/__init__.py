"""Training: ``train`` begins with rows of the store and ends with files, ``scope`` says what is trained on what.

In between ``side_by_side`` is Lightning's view of several autoencoders on the same batches, ``fit`` its Trainer, and
``checkpoints`` what a killed training goes on from.
"""
