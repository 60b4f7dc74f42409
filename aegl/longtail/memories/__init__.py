"""Feature memories, one file each (`memory.name`): features of earlier regions, trained on again."""
