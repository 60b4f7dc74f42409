"""Classification losses, one file each (`loss.name`)."""
