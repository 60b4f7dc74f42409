"""aegl.models"""
