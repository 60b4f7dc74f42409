"""Classification losses, one file each; the table of their names is :data:`aegl.longtail.LOSSES`."""
