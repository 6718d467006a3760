"""Methods of attribution, one file each: ``attribute(experiment, **options) -> dict[Site, Importances]``."""
