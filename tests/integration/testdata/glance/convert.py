"""Glance's own image conversion, as the import plugin runs it: convert.py SOURCE-FORMAT FILE TARGET-FORMAT."""
import sys

from glance.async_.flows.plugins import image_conversion
from glance.common import config
from oslo_config import cfg


class Action:
    """What the plugin asks of the image that is imported."""

    image_id = "image"

    def __init__(self, disk_format):
        self.image_disk_format = disk_format

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return False

    def set_image_attribute(self, **kwargs):
        print("set", kwargs)


source, path, target = sys.argv[1:]
config.parse_args(args=[])
cfg.CONF.set_override("output_format", target, group="image_conversion")
task = image_conversion._ConvertImage(None, "task", "import", Action(source), [])
print("gives", task.execute("file://" + path))
