"""How the jobs of a multirun are compared: one file a way, each with one function.

    compare(jobs) -> Comparison    a row for each job, and a picture

A new way is a new file here and one in the configuration (``sweep``).
"""
