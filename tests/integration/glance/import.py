"""Imports images through Glance's own API and prints what became of each: one JSON object a line.

Glance runs in this process: its WSGI application, with the folders that kolla-ansible's glance-api.conf names. What kolla has and this has not: the
database is SQLite instead of MariaDB, and nobody asks Keystone; the requests carry the headers that Keystone's middleware would add.

usage: import.py SOURCES FROM:TO…    qcow2:raw has SOURCES/image.qcow2 imported and converted to raw
"""

import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from wsgiref import simple_server

ADDRESS = ("127.0.0.1", 9292)
DATA = "/var/lib/glance"  # as in kolla's container: the volume, or what glance_file_datadir_volume names
CONFIG = pathlib.Path("/tmp/glance-config")
LOG = pathlib.Path("/tmp/glance.log")
IDENTITY = {"X-Identity-Status": "Confirmed", "X-User-Id": "operator", "X-Project-Id": "project", "X-Roles": "admin,member,reader"}
LIMIT = 120  # seconds for one image. On a machine with much else to do one took twenty.

API_CONF = """
[DEFAULT]
enabled_backends = file:file
log_file = {log}
[database]
connection = sqlite:////tmp/glance.sqlite
[paste_deploy]
flavor = keystone
config_file = {paste}
[glance_store]
default_backend = file
[file]
filesystem_store_datadir = {data}/images/
[os_glance_tasks_store]
filesystem_store_datadir = {data}/tasks_work_dir
[os_glance_staging_store]
filesystem_store_datadir = {data}/staging
[oslo_concurrency]
lock_path = {data}/tmp
"""

IMPORT_CONF = """
[image_import_opts]
image_import_plugins = ['image_conversion']
[image_conversion]
output_format = raw
"""


class QuietHandler(simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        """Standard output and error are for the results."""


def start():
    """Starts Glance's API. CONF is that of the process, as Glance keeps it in a global."""
    CONFIG.mkdir(exist_ok=True)
    paste = CONFIG / "glance-api-paste.ini"
    original = pathlib.Path(sys.prefix, "etc/glance", paste.name).read_text()
    without_keystone = original.replace(" authtoken context ", " context ")
    if without_keystone == original:
        raise SystemExit(f"{paste.name} of this Glance has another pipeline")
    paste.write_text(without_keystone)
    (CONFIG / "glance-api.conf").write_text(API_CONF.format(log=LOG, paste=paste, data=DATA))
    (CONFIG / "glance-image-import.conf").write_text(IMPORT_CONF)
    os.environ["OS_GLANCE_CONFIG_DIR"] = str(CONFIG)
    manage = [f"{sys.prefix}/bin/glance-manage", "--config-file", CONFIG / "glance-api.conf", "db_sync"]
    done = subprocess.run(manage, capture_output=True, check=False, text=True, timeout=120)
    if done.returncode != 0:
        raise SystemExit(f"glance-manage: {done.stdout}{done.stderr}")
    from glance.wsgi import api  # reads the configuration at once

    server = simple_server.make_server(*ADDRESS, api.application, handler_class=QuietHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def call(method, path, body=None, kind="application/json"):
    data = json.dumps(body).encode() if kind == "application/json" and body is not None else body
    request = urllib.request.Request(f"http://{ADDRESS[0]}:{ADDRESS[1]}{path}", data, IDENTITY | {"Content-Type": kind}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            text = answer.read()
    except urllib.error.HTTPError as e:
        raise SystemExit(f"{method} {path}: {e} {e.read().decode()}") from None
    return json.loads(text) if text else None


def import_image(source, disk_format, output_format):
    """The requests of `openstack image create --import --file SOURCE`."""
    from glance.api import common
    from glance.async_.flows.plugins import image_conversion

    # Who asks Glance for its tasks makes it write, and SQLite may then refuse what the import writes. So nobody asks before it has ended.
    tasks, started = common.get_thread_pool("tasks_pool"), []
    tasks.spawn = lambda function, *args: started.append(tasks.pool.submit(function, *args))
    logged = LOG.stat().st_size
    image_conversion.CONF.set_override("output_format", output_format, group="image_conversion")
    image = call("POST", "/v2/images", {"name": "trial", "disk_format": disk_format, "container_format": "bare"})
    at = f"/v2/images/{image['id']}"
    call("PUT", f"{at}/stage", source.read_bytes(), "application/octet-stream")
    call("POST", f"{at}/import", {"method": {"name": "glance-direct"}})
    concurrent.futures.wait(started, LIMIT)
    task = call("GET", f"{at}/tasks")["tasks"][0]
    image = call("GET", at)
    # The user is told "Task failed due to Internal Error"; what qemu-img said is in the log alone.
    said = re.search(r"Failed to execute task \S+: (.+?)\n(?=\d{4}-\d\d-\d\d |$)", LOG.read_bytes()[logged:].decode(), re.DOTALL)
    became = {"image": image["status"], "format": image["disk_format"]}
    return {"from": disk_format, "to": output_format, "task": task["status"], "said": said[1] if said else "", **became}


def main(sources, *trials):
    start()
    for trial in trials:
        disk_format, output_format = trial.split(":")
        print(json.dumps(import_image(pathlib.Path(sources, f"image.{disk_format}"), disk_format, output_format)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
