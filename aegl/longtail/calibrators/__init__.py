"""Score calibrators, one file each (`calibrate.name`)."""
