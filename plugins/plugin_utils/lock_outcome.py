"""What became of each host in a run of the fix playbook, and whether a further one is begun: without input or output."""

from __future__ import annotations

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_cure import FOR_GUESTS, bare, fleet, inert, looked_at, refusing, some
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import flag, natural, row_of, text

# Words for what became of a host. These fail it.
BAD = ("unreachable", "failed", "lost", "stopped", "left")


def outcome(known):
    """What became of a host in a run of the fix playbook: a word and a sentence. known are its variables.

    The words: nothing (to be done), done, left (fails still, and needs a person), failed, lost (contact, in the middle), stopped (not
    begun), unreachable.
    """
    info = row_of(known, "nfs_lock_info_result")
    plan = row_of(known, "nfs_lock_cure_plan")
    end = row_of(known, "nfs_lock_cure_outcome")
    compute = text(known, "nfs_lock_cure_compute")
    if text(end, "status") == "begun":
        lost = f"contact was lost during {text(end, 'message')}; run again, which looks at what is there first"
        return "lost", f"{lost}. nova-compute {compute}" if compute else lost
    left = [sentence for sentence in plan.get("left", []) if isinstance(sentence, str)]
    look = [sentence for sentence in plan.get("look", []) if isinstance(sentence, str)]
    if end:
        return text(end, "status"), joined([text(end, "message"), *left, *look])
    if not looked_at(info):
        return ("unreachable" if flag(info, "unreachable") else "failed"), text(info, "msg") or "it was not looked at"
    if not plan:
        return "failed", "no plan was made; its output is above"
    if flag(plan, "todo"):
        return "stopped", "not begun: the run had stopped"
    if left:
        return "left", joined(left + look)
    return "nothing", joined([text(info, "msg"), *look])


def joined(sentences):
    """One sentence of all of them."""
    return "; ".join(sentence.rstrip(".") for sentence in sentences)


def later(known, now, word, sentence):
    """The same outcome, or left: a store may be known to refuse locks only since its own host was cured. now is what fleet() returns at the end."""
    info, before = row_of(known, "nfs_lock_info_result"), row_of(row_of(known, "nfs_lock_cure_fleet"), "refused")
    stock = any(name in bare(info) for name in FOR_GUESTS)
    new = [
        f"{source} ({where})"
        for source, where in now["refused"].items()
        if inert(source) not in before and (stock or refusing(info) and source not in now["squashed"])
    ]
    if word not in ("nothing", "done") or not new:
        return word, sentence
    return "left", f"{sentence}; guests will use {', '.join(new)}, whose locks turned out to be refused meanwhile: run again"


def outcomes(known_of, hosts):
    """All hosts: lines for people, those that want one first, and bad: {host: sentence} of those that are to fail."""
    known = {host: known_of(host) for host in hosts}
    now = fleet((host, row_of(known[host], "nfs_lock_info_result")) for host in hosts)
    rows = [(host, *later(known[host], now, *outcome(known[host]))) for host in hosts]
    rows.sort(key=lambda row: (BAD.index(row[1]) if row[1] in BAD else len(BAD) + (row[1] == "nothing"), natural(row[0])))
    return {
        "lines": [f"{host}: {word}: {sentence}" for host, word, sentence in rows],
        "bad": {host: f"{word}: {sentence}" for host, word, sentence in rows if word in BAD},
    }


def stop(ended, canary=1, any_errors_fatal=False, max_fail_percentage=100, batch=1):
    """Why no further host is to be begun, empty if one may be. ended are pairs of a host and its outcome, of those that were begun.

    A first host that was alone counts as a canary even where canary is 0. batch is how many hosts the last batch had: if all of it failed, and it
    was not one host, that is no host's own matter, nor if two such batches did.
    """
    canary = max(canary, 1)
    failed = [host for host, end in ended if text(end, "status") not in ("done", "left")]
    if not failed:
        return ""
    names = some(failed)
    if len(ended) <= canary:
        return f"{names} failed, of the {canary} that went first"
    last = ended[-max(batch, 2) :]
    if len(last) >= max(batch, 2) and all(host in failed for host, _end in last):
        return f"{names} failed, and with it all of the last {len(last)} hosts"
    if any_errors_fatal:
        return f"{names} failed, and any failure is to stop the run"
    if len(failed) * 100 > max_fail_percentage * len(ended):
        return f"{names} failed, more than {max_fail_percentage} % of the hosts so far"
    return ""
