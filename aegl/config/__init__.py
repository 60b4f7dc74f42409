"""The typed configuration and how it is put together."""

from aegl.config.dump import to_yaml
from aegl.config.load import Resolved, complete_parts, flatten, load_config, resolve
from aegl.config.schema import Config

__all__ = ["Config", "Resolved", "complete_parts", "flatten", "load_config", "resolve", "to_yaml"]
