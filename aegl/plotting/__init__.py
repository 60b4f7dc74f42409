"""`aegl plot`: which figures there are, what each needs, and where that lies in the folders of runs."""
