"""A host's result of nfs_lock_info as a textfile for Prometheus's node_exporter.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/. One series that stands there twice makes the collector
refuse the whole file, hence no series is written twice, whatever the host said.
"""

from __future__ import annotations

import re

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import VERDICTS, lost, place_of, read_host, started, worse
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_text import visible

VOLATILE = re.compile(r"(?m)^nfs_lock_\w*(?:timestamp|duration)_seconds.*\n")


def metrics(host, result, time):
    """The text. time is when the host was looked at, in seconds of Unix."""
    row = read_host(host, result, None)
    text = Textfile()
    looked = row["status"] not in ("unreachable", "failed", "no_result")
    text.family("nfs_lock_probe_success", "Whether the host could be looked at. All else is missing if not.", [({}, looked)])
    text.family("nfs_lock_probe_timestamp_seconds", "When the host was looked at, in seconds since 1970.", [({}, int(float(time)))])
    if not looked:
        return str(text)

    text.family("nfs_lock_probe_duration_seconds", "How long it took, with the tries of all locks.", [({}, row["took_ms"] / 1000)])
    text.family(
        "nfs_lock_host_verdict",
        "1 for the host's verdict, 0 for all others.",
        [({"verdict": verdict}, verdict == row["verdict"]) for verdict in VERDICTS],
    )
    mounts = {}
    for mount in row["mounts"]:
        key = (mount["container"], mount["path"], mount["source"])
        mounts[key] = worse(mounts.get(key, "none"), mount["verdict"])
    text.family(
        "nfs_lock_mount_verdict",
        "1 for the verdict of a container's mount. A series with another verdict is no longer written.",
        [({"container": container, "mount": path, "source": source, "verdict": verdict}, 1) for (container, path, source), verdict in mounts.items()],
    )
    text.family(
        "nfs_lock_mount_duration_seconds",
        "How long the calls of one kind of lock took on a container's mount.",
        [
            ({"container": mount["container"], "mount": mount["path"], "source": mount["source"], "lock": kind}, probe["ms"] / 1000)
            for mount in row["mounts"]
            for kind, probe in mount["probes"].items()
            if probe["result"] != "not_tried"
        ],
    )
    text.family(
        "nfs_lock_patched",
        "Whether a package of QEMU in a container is the patched one.",
        [
            ({"container": packages["container"], "package": packet["name"]}, packet["patched"])
            for packages in row["packages"]
            for packet in packages["installed"]
        ],
    )
    text.family(
        "nfs_lock_library",
        "Whether programs that start in a container have the preloaded library.",
        [
            ({"container": packages["container"]}, packages["library"]["state"] in ("installed", "bound", "old"))
            for packages in row["packages"]
            if packages["library"]["state"]
        ],
    )
    guests, proved = {}, started(row)
    for mount in row["mounts"]:
        key, starts = (mount["container"], mount["path"], mount["source"]), mount["guests"]["start"]
        if starts in ("yes", "no"):
            guests[key] = guests.get(key, True) and (starts == "yes" or place_of(mount) in proved)
    text.family(
        "nfs_lock_guest_can_start",
        "Whether a guest can start from a mount: one did, or as far as its locks tell.",
        [({"container": container, "mount": path, "source": source}, starts) for (container, path, source), starts in guests.items()],
    )
    text.family(
        "nfs_lock_stale_guests",
        "Running guests whose QEMU was replaced since they were started, or which have not the library.",
        [({}, len(row["stale_guests"]))],
    )
    drifted = {drift["container"] for drift in lost(row)}
    text.family("nfs_lock_drifted_containers", "Containers that were patched, or had the library, and are stock again.", [({}, len(drifted))])
    text.family("nfs_lock_stuck_probes", "Processes of earlier runs that still hang in a mount.", [({}, len(row["stuck_probes"]))])
    kinds = [finding["kind"] for finding in row["findings"]]
    text.family("nfs_lock_findings", "Findings by kind.", [({"kind": kind}, kinds.count(kind)) for kind in sorted(set(kinds))])
    text.family(
        "nfs_lock_rpc_service_up",
        "Whether rpcbind and rpc.statd answer on the host.",
        [({"service": name}, service["state"] == "answers") for name, service in row["services"].items()],
    )
    return str(text)


def unchanged(old, new):
    """Whether two textfiles say the same but for times."""
    return VOLATILE.sub("", old) == VOLATILE.sub("", new)


class Textfile:
    def __init__(self):
        self.lines = []

    def family(self, name, help_text, samples):
        """A gauge and its series; of two with the same labels the first is kept. Nothing is written without a series."""
        series = {}
        for labels, value in samples:
            series.setdefault(",".join(f'{label}="{escaped(text)}"' for label, text in labels.items()), value)
        if not series:
            return
        self.lines += [f"# HELP {name} {help_text}", f"# TYPE {name} gauge"]
        for labels, value in series.items():
            self.lines.append(f"{name}{{{labels}}} {number(value)}" if labels else f"{name} {number(value)}")

    def __str__(self):
        return "\n".join(self.lines) + "\n"


def escaped(text):
    text = "\n".join(visible(line) for line in text.split("\n"))  # the format has a word for no other character that cannot be seen
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def number(value):
    return str(int(value)) if value == int(value) else f"{value:.6f}".rstrip("0")
