"""The only reader of environment and configuration file.

source = SettingsSource(path, os.environ)
settings = load_settings(source)      # raises ConfigurationError: one sentence
await SettingsWatcher(settings, apply).run()   # watch.py: what may change while running
"""

from crosslogic.settings.load import load_settings
from crosslogic.settings.model import Settings
from crosslogic.settings.source import SettingsSource

__all__ = ["Settings", "SettingsSource", "load_settings"]
