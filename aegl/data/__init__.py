"""aegl.data"""
