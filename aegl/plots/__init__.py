"""aegl.plots"""
