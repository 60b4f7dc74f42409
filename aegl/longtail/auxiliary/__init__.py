"""Auxiliary losses, one file each (`auxiliary.name`): extra terms beside any classification loss."""
