"""Region selectors, one file each (`selector.name`): which regions are trained on."""
