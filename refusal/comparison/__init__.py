"""Do the categories share a mechanism: how alike their circuits are, what knocking one out does to another, verdict."""
