"""Autoencoders of others and for others: their files (``formats``), the hub (``places``), use in a study (``adopt``).

The commands are ``python -m refusal.sae.convert`` and ``python -m refusal.sae.hub``.
"""
