"""The typed configuration and how it is put together."""

from aegl.config.load import known_keys, load_config, to_yaml
from aegl.config.schema import Config

__all__ = ["Config", "known_keys", "load_config", "to_yaml"]
