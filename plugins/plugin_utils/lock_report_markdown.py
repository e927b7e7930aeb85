"""The report on file locks as Markdown (GitHub's), for a ticket or a chat."""

from __future__ import annotations

import re

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import QUIET, STATUSES, failing, place_of, started
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_text import visible


def prose(text):
    """A sentence in which nothing is markup, a link or a mention."""
    text = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("@", "&#64;")
    text = re.sub(r"[\\`*{}\[\]#|~!$]", r"\\\g<0>", text)
    text = re.sub(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", r"\\_", text)
    return re.sub(r"(?i)://|\bwww\.", lambda match: match[0].replace(":", "&#58;").replace(".", "&#46;"), text)


def code(text):
    """A name as code. Two spaces outside keep backticks at the ends; a bar would end a table's cell even in code."""
    text = visible(text) or " "
    if "|" in text:  # only this form is the same in and outside of tables
        return "<code>" + re.sub(r"[^0-9A-Za-z ,/=.-]", lambda match: f"&#{ord(match[0])};", text) + "</code>"
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or (text.strip() and text[0] == text[-1] == " ") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def markdown(report):
    lines = ["# File locks on the hosts", ""]
    if report["time"]:
        lines += [prose(report["time"]), ""]
    summary = report["summary"]
    counts = [f"**{summary[status]}** {label}" for status, label in STATUSES.items() if summary[status]]
    lines += [f"{summary['hosts']} hosts: " + ", ".join(counts) if counts else "No hosts.", ""]
    if report["hosts"]:
        lines += ["| host | status | verdict | worst of its containers |", "|---|---|---|---|"]
    for host in report["hosts"]:
        worst = [f"{code(row['name'])} {prose(row['verdict'])}" for row in host["containers"] if row["verdict"] not in ("ok", "none")]
        lines.append(f"| {code(host['host'])} | {STATUSES[host['status']]} | {prose(host['verdict'])} | {', '.join(worst)} |")
    for host in report["hosts"]:
        lines += section(host)
    return "\n".join(lines) + "\n"


def section(host):
    """What is to be known of a host; nothing where all is well."""
    lines, starts = [], started(host)
    for mount in host["mounts"]:
        if mount["verdict"] != "ok":
            where = f"{code(mount['source'])} at {code(mount['path'])} in {code(mount['container'])}"
            lines.append(f"- {where}: {prose(mount['verdict'])}: {prose(mount['reason'])}")
        if mount["guests"]["start"] == "no" and host["status"] != "libvirt" and place_of(mount) not in starts:  # where it is the reason
            where = f"{code(mount['source'])} at {code(mount['path'])} in {code(mount['container'])}"
            lines.append(f"- no guest starts from {where}: {prose('; '.join(mount['guests']['missing']))}")
    for row in failing(host["proofs"]):
        lines.append(f"- qemu-img {prose(row['step'])} {prose(row['result'])} at {code(row['path'])} in {code(row['container'])}: {prose(row['detail'])}")
    for row in failing(host["guest_proofs"]):
        how = "hangs when it is started" if row["result"] == "hangs" else "does not start"
        lines.append(f"- a guest {how} at {code(row['path'])} in {code(row['container'])}: {prose(row['detail'])}")
    for guest in host["stale_guests"]:
        lines.append(f"- guest {code(guest['guest'])} (process {guest['pid']}) runs as it was started: {prose(guest['advice'])}")
    for drift in host["drift"]:
        unused = "" if drift["counts"] else " (its own work does not use that package)"
        lines.append(f"- {code(drift['container'])} {prose(drift['kind'])}: {prose(drift['message'])}{unused}")
    for finding in host["findings"]:
        where = f" ({code(finding['file'])} line {finding['line']})" if finding["file"] else ""
        lines.append(f"- {prose(finding['kind'])}: {prose(finding['message'])}{where}")
    for row in (host["fix"] or {"containers": []})["containers"]:
        if row["error"]:
            lines.append(f"- fix of {code(row['name'])}: {prose(row['status'])}: {prose(row['error'])} {prose(row['hint'])}".rstrip())
    if host["cut"]:
        lines.append("- this host returned more than a report takes; it is cut")
    if host["status"] in QUIET and not lines:
        return []
    head = ["", f"## {code(host['host'])}: {STATUSES[host['status']]}", ""]
    if host["reason"]:
        head += [prose(host["reason"]), ""]
    cure = host["cure"]
    if host["status"] not in QUIET and cure["text"]:
        head += [f"Cure: {prose(cure['text'])}", ""]
        if cure["command"]:
            head += [("Command: " if cure["command_known"] else "The host names this command; read it before use: ") + code(cure["command"]), ""]
    return [*head, *lines] if lines else head[:-1]
