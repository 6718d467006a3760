"""The options of the commands: their types, their help, and the step from Hydra's tree to plain objects."""
