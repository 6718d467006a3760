"""From the files of a finished study to pictures and one page: it reads the disk, never a model."""
