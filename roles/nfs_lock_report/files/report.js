"use strict";
// The table is complete without this script, which adds filter, order and details. All text goes in as text, never as markup.
(() => {
  const started = performance.now();
  const id = (name) => document.getElementById(name);
  const data = unpack(JSON.parse(id("data").textContent));
  const body = id("matrix").tBodies[0];
  const heads = [...id("matrix").tHead.rows[0].cells];
  const collator = new Intl.Collator("en", {numeric: true});
  const rows = [...body.rows].map((row, index) => ({row, index, host: data.hosts[index], detail: null, words: null}));

  // What the page's author calls packed: each value was written once.
  function unpack({shapes, values}) {
    const found = [];
    for (const value of values) {
      if (!Array.isArray(value)) found.push(value);
      else if (value[0] < 0) found.push(value.slice(1).map((place) => found[place]));
      else found.push(Object.fromEntries(shapes[value[0]].map((key, index) => [key, found[value[index + 1]]])));
    }
    return found.at(-1);
  }

  function el(tag, properties, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties || {})) {
      if (name in made) made[name] = value; else made.setAttribute(name, value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return made;
  }
  const code = (text) => el("code", null, text);
  const words = (name) => name.replaceAll("_", " ");
  const ms = (value) => `${value} ms`;
  function mark(name, label) {
    const tone = data.tones[name] || "none";
    return el("span", {className: `mark ${tone}`}, el("span", {className: "shape", "aria-hidden": "true"}, data.shapes[tone]), ` ${label}`);
  }
  const list = (items) => el("ul", null, items.map((item) => el("li", null, item)));
  function group(title, ...content) {
    return [el("h4", null, title), ...content];
  }

  function command(cure) {
    if (!cure.command) return [];
    const text = code(cure.command);
    const copy = el("button", {type: "button"}, "Copy");
    copy.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(cure.command);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(text);
        copy.textContent = "Selected";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    });
    if (!cure.command_known) {
      return [el("p", {className: "note"}, "The host names this command, which is none of the usual ones. Read it before you use it."),
        el("div", {className: "command"}, el("pre", null, text))];
    }
    return [el("div", {className: "command"}, el("pre", null, text), copy)];
  }

  // Whether libvirt started a guest there in earnest, which tells more than its locks.
  function guestStarted(host, m) {
    return host.guest_proofs.some((p) => p.result === "works" && p.container === m.container && p.path === m.path);
  }

  function mount(host, m) {
    const probes = Object.entries(m.probes).filter(([, p]) => p.result && p.result !== "not_tried")
      .map(([kind, p]) => [el("strong", null, kind), ` ${words(p.result)}${p.errno ? ` (${p.errno})` : ""}, ${ms(p.ms)}`, p.detail ? [": ", code(p.detail)] : ""].flat());
    const sameCure = m.cure.text === host.cure.text && m.cure.command === host.cure.command;
    return el("section", {className: "mount"},
      el("h5", null, code(m.source || m.path)),
      el("p", null, mark(m.verdict, words(m.verdict)), " in ", code(m.container)),
      m.reason && m.verdict !== "ok" ? el("p", null, m.reason) : "",
      el("p", {className: "quiet small"}, m.image ? "image " : "at ", code(m.path)),
      el("p", {className: "quiet small"}, [m.fstype, m.vers && `version ${m.vers}`, m.probed && `probed ${m.probed}`].filter(Boolean).join(", ")),
      m.options ? el("p", {className: "quiet small"}, code(m.options)) : "",
      probes.length ? list(probes) : "",
      m.guests.start === "no" && !guestStarted(host, m) ? [el("p", null, "No guest starts from it:"), list(m.guests.missing)] : "",
      m.guests.start === "unknown" && !guestStarted(host, m) ? el("p", null, "Whether a guest starts from it could not be told.") : "",
      m.holders.length ? [el("p", null, "Holders of its locks:"), list(m.holders.map((h) => `${h.program} (process ${h.pid}${h.guest ? `, guest ${h.guest}` : ""}, in ${h.container}): ${h.kind} ${h.bytes}`))] : "",
      (m.verdict !== "ok" || m.cure.fix === "libvirt") && !sameCure && m.cure.text ? [el("p", null, m.cure.text), ...command(m.cure)] : "");
  }

  function table(caption, names, lines) {
    return el("div", {className: "scroll"}, el("table", null, el("caption", null, caption),
      el("thead", null, el("tr", null, names.map((name) => el("th", {scope: "col"}, name)))),
      el("tbody", null, lines.map((line) => el("tr", null, line.map((cell) => el("td", null, cell)))))));
  }

  function describe(host) {
    const parts = [el("h3", null, host.host)];
    parts.push(el("p", null, mark(host.status, data.statuses[host.status]), host.verdict ? ` verdict ${words(host.verdict)}` : ""));
    if (host.reason) parts.push(el("p", null, host.reason));
    if (host.cut) parts.push(el("p", {className: "note"}, "This host returned more than a report takes; it is cut."));
    if (host.cure.text) parts.push(...group("Cure", el("p", null, host.cure.text), ...command(host.cure)));
    if (host.evidence.length) parts.push(...group("Evidence", list(host.evidence.map(code))));
    if (host.mounts.length) parts.push(...group("Mounts", el("div", {className: "mounts"}, host.mounts.map((m) => mount(host, m)))));
    if (host.proofs.length) {
      parts.push(...group("Proof: the container's own qemu-img", list(host.proofs.map((p) =>
        [`${words(p.result)}${p.step ? ` (${p.step})` : ""}${p.unlocked ? ", without a lock" : ""} in `, code(p.container), " at ", code(p.path), p.detail ? `: ${p.detail}` : ""]))));
    }
    if (host.guest_proofs.length) {
      parts.push(...group("Proof: a guest that libvirt started", list(host.guest_proofs.map((p) =>
        [`${words(p.result)}${p.unlocked ? ", without a lock" : ""} in `, code(p.container), " at ", code(p.path), p.detail ? `: ${p.detail}` : ""]))));
    }
    if (host.stale_guests.length) {
      parts.push(...group("Stale guests", table("Running guests whose QEMU was replaced since they were started, or which have not the library", ["guest", "process", "locks", "what to do"],
        host.stale_guests.map((g) => [code(g.guest), String(g.pid), String(g.locks), g.advice]))));
    }
    if (host.drift.length) parts.push(...group("Drift since the last fix", list(host.drift.map((d) => [code(d.container), ` ${words(d.kind)}: ${d.message}${d.counts ? "" : " (its own work does not use that package)"}`]))));
    if (host.findings.length) {
      parts.push(...group("Findings", list(host.findings.map((f) => [`${f.message} `, f.file ? code(`${f.file}:${f.line}`) : ""]))));
    }
    if (host.stuck_probes.length) parts.push(...group("Probes that still hang", list(host.stuck_probes.map((p) => `process ${p.pid}, device ${p.device}`))));
    if (host.fix) {
      const lines = host.fix.containers.map((c) => [code(c.name), ` ${words(c.status)}${c.error ? `: ${c.error}` : ""}${c.hint ? ` (${c.hint})` : ""}`]);
      parts.push(...group("Last fix", host.fix.msg ? el("p", null, host.fix.msg) : "", lines.length ? list(lines) : ""));
    }
    if (host.packages.length) {
      parts.push(...group("Versions", table("QEMU in each container", ["container", "QEMU", "packages", "image"], host.packages.map((p) => [
        code(p.container),
        p.error || [`${p.qemu}${p.variant ? ` (${p.variant})` : ""}`,
          ["", "none"].includes(p.library.state) ? "" : el("div", {className: "quiet"}, `the library: ${p.library.state}`,
            p.library.current || !p.library.sha256 ? "" : ", another build than this collection's", ...(p.library.sha256 ? [", SHA-256 ", code(p.library.sha256)] : [])),
          p.library.others.length ? el("div", {className: "quiet"}, `/etc/ld.so.preload also names ${p.library.others.join(", ")}`) : "",
          p.stock_emulators.length ? el("div", {className: "quiet"}, `emulators without the patch, which do not count: ${p.stock_emulators.join(", ")}`) : ""],
        p.installed.length ? p.installed.map((i) => el("div", null, code(`${i.name} ${i.version}`), i.held ? " held" : "")) : "none",
        [p.image, p.distribution, p.state].filter(Boolean).join(", "),
      ]))));
    }
    const services = Object.entries(host.services).map(([name, s]) =>
      `${name}: ${s.state}${s.where ? ` (${s.where})` : ""}${s.answers_ms ? `, ${ms(s.answers_ms)}` : ""}${s.detail ? `: ${s.detail}` : ""}`);
    const libvirt = host.libvirt, locks = libvirt.locks;
    const on = (value) => (value ? "on" : "off");
    if (locks.container) {
      services.push(`libvirt ${locks.version} in ${locks.container} takes ${locks.own_locks ? "a lock" : "no lock"} of its own on each disk: `
        + `remember_owner ${on(locks.remember_owner)}, dynamic_ownership ${on(locks.dynamic_ownership)}`
        + `${locks.lock_manager ? `, lock_manager ${locks.lock_manager}` : ""} (${locks.file})${locks.detail ? `: ${locks.detail}` : ""}`
        + `${locks.covered ? "; it has the library loaded, and goes on where that lock is refused" : ""}`);
    }
    if (libvirt.container) services.push(`${libvirt.container} is ${libvirt.healthy ? "healthy" : "not healthy"}${libvirt.detail ? `: ${libvirt.detail}` : ""}`);
    if (host.engine.name) services.push(`${host.engine.name} ${host.engine.version}`);
    if (host.engine.error) services.push(`no engine: ${host.engine.error}`);
    if (services.length) parts.push(...group("Services", list(services)));
    return parts;
  }

  function toggle(entry, open) {
    if (open && !entry.detail) {
      entry.detail = el("tr", {className: "detail", id: `detail-${entry.index}`}, el("td", {colSpan: heads.length}, describe(entry.host)));
      entry.row.after(entry.detail);
    }
    if (entry.detail) entry.detail.hidden = !open || entry.row.hidden;
    entry.row.classList.toggle("open", open);
    entry.button.setAttribute("aria-expanded", String(open));
    if (entry.detail) entry.button.setAttribute("aria-controls", entry.detail.id);
  }
  const isOpen = (entry) => entry.row.classList.contains("open");

  for (const entry of rows) {
    const name = entry.row.cells[0].firstElementChild;
    entry.button = el("button", {type: "button", className: "name", "aria-expanded": "false"}, name.textContent);
    name.replaceWith(entry.button);
  }
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button.name");
    if (!button) return;
    const entry = rows.find((one) => one.button === button);
    toggle(entry, !isOpen(entry));
  });

  // What a host is found by: all its texts, not the names of fields.
  function textOf(value) {
    if (value === null || typeof value === "boolean") return "";
    if (typeof value !== "object") return String(value);
    return Object.values(value).map(textOf).join("\n");
  }
  function filter() {
    const wanted = id("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const status = id("status").value;
    let shown = 0;
    for (const entry of rows) {
      if (wanted.length && entry.words === null) entry.words = `${textOf(entry.host)}\n${data.statuses[entry.host.status]}`.toLowerCase();
      const fits = (!status || entry.host.status === status) && wanted.every((word) => entry.words.includes(word));
      entry.row.hidden = !fits;
      if (entry.detail) entry.detail.hidden = !fits || !isOpen(entry);
      shown += fits;
    }
    id("shown").textContent = shown === rows.length ? `${shown} hosts` : `${shown} of ${rows.length} hosts`;
  }

  function sort(column, descending) {
    const key = (entry) => Number(entry.row.cells[column].dataset.rank);
    const compare = column === 0
      ? (a, b) => collator.compare(a.host.host, b.host.host)
      : (a, b) => key(a) - key(b) || collator.compare(a.host.host, b.host.host);
    const sorted = [...rows].sort((a, b) => (descending ? compare(b, a) : compare(a, b)));
    body.append(...sorted.flatMap((entry) => (entry.detail ? [entry.row, entry.detail] : [entry.row])));
    heads.forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
    });
    id("sort").value = String(column);
  }
  heads.forEach((head, column) => {
    const title = head.textContent;
    const button = el("button", {type: "button"}, [...head.childNodes]);
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
    head.append(button);
    id("sort").append(el("option", {value: String(column)}, title));
  });
  id("sort").addEventListener("change", () => sort(Number(id("sort").value), false));

  for (const status of Object.keys(data.statuses)) {
    if (rows.some((entry) => entry.host.status === status)) id("status").append(el("option", {value: status}, data.statuses[status]));
  }
  id("filter").addEventListener("input", filter);
  id("status").addEventListener("change", filter);
  id("open-all").addEventListener("click", () => rows.forEach((entry) => { if (!entry.row.hidden) toggle(entry, true); }));
  id("close-all").addEventListener("click", () => rows.forEach((entry) => toggle(entry, false)));

  id("tools").hidden = false;
  heads[1].setAttribute("aria-sort", "ascending"); // as the page comes
  id("sort").value = "1";
  filter();
  performance.measure("script", {start: started});
})();
