"""aegl.engine"""
