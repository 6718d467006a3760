"""The options of the commands: their types, their help page, and the step from the configuration tree to plain objects."""
