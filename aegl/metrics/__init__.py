"""aegl.metrics"""
