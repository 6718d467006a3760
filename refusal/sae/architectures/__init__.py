"""The architectures: one file with one class each, which says which features are active and what training minimises.

A new one is a file like these, and a YAML file in ``conf/sae`` that names its class.
"""
