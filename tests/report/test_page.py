"""The page in a real browser."""

import http.server
import pathlib
import re
import threading

import hostvars
import pytest
from browser import Browser
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report import collect
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_page import page
from ansible_collections.nfslock.kolla.plugins.plugin_utils.lock_report_text import visible

FILES = pathlib.Path(__file__).parents[2] / "roles" / "nfs_lock_report" / "files"
SCHEMES = ("light", "dark")
HOSTILE = {"<b>evil</b>|`x`": hostvars.hostile(), "shapeless": hostvars.SHAPELESS, "compute1": hostvars.well()}

# For each text on the page: what it is, its contrast with what is behind it, and what WCAG 2.2 asks for.
CONTRASTS = r"""
const channels = (text) => { const n = text.match(/[\d.]+/g).map(Number); return {rgb: n.slice(0, 3), alpha: n.length > 3 ? n[3] : 1}; };
const linear = (c) => (c / 255 <= .03928 ? c / 255 / 12.92 : ((c / 255 + .055) / 1.055) ** 2.4);
const light = ({rgb: [r, g, b]}) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
function behind(element) {
  for (let one = element; one; one = one.parentElement) {
    const colour = channels(getComputedStyle(one).backgroundColor);
    if (colour.alpha === 1) return colour;
    if (colour.alpha !== 0) throw new Error("a half transparent background");
  }
  return {rgb: [255, 255, 255], alpha: 1}; // paper
}
const found = [];
function check(element, pseudo, text) {
  const style = getComputedStyle(element, pseudo);
  const [a, b] = [light(channels(style.color)), light(behind(element))].sort((x, y) => y - x);
  found.push([`${element.tagName}.${element.className}${pseudo || ""}: ${text.trim().slice(0, 40)}`, (a + .05) / (b + .05)]);
}
for (const element of document.body.querySelectorAll("*")) {
  if (!element.checkVisibility() || ["SCRIPT", "NOSCRIPT"].includes(element.tagName)) continue;
  const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join("");
  if (text.trim()) check(element, null, text);
  if (element.placeholder) check(element, "::placeholder", element.placeholder);
  for (const pseudo of ["::before", "::after"]) {
    const content = getComputedStyle(element, pseudo).content;
    if (content !== "none" && content !== "normal") check(element, pseudo, content);
  }
}
return found;
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")

    def write(name, results):
        path = folder / f"{name}.html"
        files = {"template": "report.html.j2", "style": "report.css", "script": "report.js"}
        texts = {option: (FILES / file).read_text(encoding="utf-8") for option, file in files.items()}
        path.write_text(page(collect(hostvars.without_fix(results)), **texts), encoding="utf-8")
        return path

    results = {"typical": hostvars.TYPICAL, "hostile": HOSTILE, "many": hostvars.many(), "proved": proved()}
    return {name: write(name, those) for name, those in results.items()}


def proved():
    """A host where a guest started though libvirt's settings tell that none does, and one where only what nobody uses is stock again."""
    starts, unused = hostvars.needs_libvirt(), hostvars.lost()
    starts["guest_proofs"][0].update(result="works", detail="")
    unused["drift"][0]["counts"] = False
    return {"starts": starts, "unused": unused}


@pytest.fixture(scope="module")
def chromium():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium):
    chromium.command("Emulation.setScriptExecutionDisabled", value=False)
    chromium.look()
    return chromium


def shown(browser):
    return browser.run(
        "return [...document.querySelectorAll('#matrix > tbody > tr:not(.detail)')].filter(r => r.checkVisibility())"
        ".map(r => r.querySelector('.name').textContent)"
    )


def open_all(browser):
    browser.run("document.getElementById('open-all').click()")


def test_it_loads_without_a_message_or_a_request(browser, pages):
    for page in pages.values():
        browser.open(page)
        assert browser.messages() == []
        assert browser.requests() == [page.as_uri()]


class Listener(http.server.BaseHTTPRequestHandler):
    asked = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def listener():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Listener.asked = []
        yield server
        server.shutdown()


def test_it_may_load_and_run_nothing(browser, pages, listener, tmp_path):
    """Not even if somebody's text were taken for markup. The same page without its policy shows that the attack works."""
    attack = f"""
        const where = "http://127.0.0.1:{listener.server_port}";
        document.body.insertAdjacentHTML("beforeend", `<p onclick="window.injected = 1" id="p"></p>
            <img src="${{where}}/image"><link rel="stylesheet" href="${{where}}/style">`);
        const s = document.createElement("script"); s.textContent = "window.injected = 1"; document.body.append(s);
        document.getElementById("p").click();
        fetch(where + "/fetch", {{mode: "no-cors"}}).catch(() => {{}});
        setTimeout(arguments[0], 500);
    """
    naked = tmp_path / "naked.html"
    naked.write_text(re.sub(r"<meta http-equiv=[^>]*>", "", pages["typical"].read_text(encoding="utf-8")), encoding="utf-8")
    browser.open(naked)
    browser.driver.execute_async_script(attack)
    assert browser.run("return window.injected") == 1
    assert set(Listener.asked) == {"/image", "/style", "/fetch"}

    Listener.asked.clear()
    browser.open(pages["typical"])
    browser.driver.execute_async_script(attack)
    assert browser.run("return window.injected") is None
    assert Listener.asked == []


def test_filter_and_status_find_hosts(browser, pages):
    browser.open(pages["typical"])
    everything = shown(browser)
    worst_first = ["compute4", "storage1", "storage2", "compute2", "compute10", "compute7", "compute5", "compute6", "compute3", "compute8", "compute1"]
    assert everything == worst_first, "what needs a hand comes first"
    field = browser.driver.find_element("id", "filter")
    said = browser.driver.find_element("id", "shown")
    for words, hosts in {
        "compute10": ["compute10"],
        "NFS_shares": ["compute2"],
        "instance-0000002a": ["compute6"],
        "juicefs nfslock1": ["compute7", "compute6", "compute3"],
        "lost the patch": ["compute5"],
        "no route": ["compute4"],
        "evidence": [],  # the name of a field, and nothing that a host said
        "zebra compute2": [],
    }.items():
        field.clear()
        field.send_keys(words)
        assert shown(browser) == hosts, words
        assert said.text == f"{len(hosts)} of 11 hosts"
    field.clear()
    field.send_keys(" ")
    assert shown(browser) == everything and said.text == "11 hosts"
    browser.run("const s = document.getElementById('status'); s.value = 'rpcbind'; s.dispatchEvent(new Event('change'))")
    assert shown(browser) == ["compute2"]
    field.send_keys("compute1")
    assert shown(browser) == []


def test_every_column_sorts(browser, pages):
    browser.open(pages["typical"])
    open_all(browser)
    heads = browser.driver.find_elements("css selector", "#matrix thead th button")
    assert [head.text for head in heads] == ["Host", "Status", "nova_libvirt", "nova_compute", "cinder_volume", "cinder_backup"]
    heads[0].click()
    names = [*(f"compute{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 10)), "storage1", "storage2"]
    assert shown(browser) == names
    heads[0].click()
    assert shown(browser) == names[::-1]
    assert browser.run("return [...document.querySelectorAll('[aria-sort]')].map(h => [h.textContent, h.ariaSort])") == [["Host", "descending"]]
    heads[3].click()
    assert shown(browser)[:3] == ["compute2", "compute1", "compute5"], "statd dead before ok"
    heads[4].click()
    assert shown(browser)[:4] == ["compute3", "compute6", "compute10", "compute1"], "locks refused, three times, before ok"
    assert browser.run(
        "return [...document.querySelectorAll('tr.detail')]"
        ".every(d => d.previousElementSibling.querySelector('.name').textContent === d.querySelector('h3').textContent)"
    ), "details went elsewhere than their hosts"


# What the page says in words of its own, or only the JSON has.
WORDED = ("msg", "verdict", "fix", "recommended_fix", "kind", "result", "command", "was", "is", "id", "seccomp", "start")


def test_what_was_proved_or_is_not_used_raises_no_alarm(browser, pages):
    browser.open(pages["proved"])
    open_all(browser)
    text = browser.run("return document.getElementById('matrix').innerText")
    for words in ("No guest starts", "no guest starts", "remember_owner = 0", "lost the patch", "needs"):
        assert words not in text, words
    for words in ("Nothing more is to be done: a guest started there.", "run the fix again (its own work does not use that package)"):
        assert words in text, words


def test_details_say_everything(browser, pages):
    browser.open(pages["typical"])
    open_all(browser)
    text = browser.run("return document.getElementById('matrix').innerText")
    for result in hostvars.TYPICAL.values():
        for words in every_text(result or {}, skip=WORDED):
            assert words in text, words
    for words in (
        "statd dead",
        "ofd refused (ENOLCK), 0.4 ms",
        "ansible -i INVENTORY compute2 -b -m nfslock.kolla.rpcbind_ensure",
        "/etc/kolla/cinder-volume/nfs_shares:1",
        "4711",
        "docker 24.0.7",
        "No route to host",
        "Proof: a guest that libvirt started",
        "libvirt 11.3.0 in nova_libvirt takes a lock of its own on each disk: remember_owner on, dynamic_ownership on (/etc/libvirt/qemu.conf)",
        "nova_libvirt is healthy",
        "No guest starts from it:",
        "emulators without the patch, which do not count: arm, ppc",
        "QEMU patched, no guest starts",
        "QEMU stock, lost the patch",
        f"the library: bound, SHA-256 {hostvars.SHA256}",
        f"the library: old, another build than this collection's, SHA-256 {hostvars.SHA256}",
        "/etc/ld.so.preload also names /usr/lib/libsafe.so",
        "it has the library loaded, and goes on where that lock is refused",
    ):
        assert words in text, words


def every_text(value, skip=()):
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in skip:
                yield from every_text(item, skip)
    elif isinstance(value, list):
        for item in value:
            yield from every_text(item, skip)
    elif isinstance(value, str) and value:
        yield value


@pytest.mark.parametrize("width", [1280, 375])
def test_a_keyboard_is_enough(browser, pages, width):
    browser.look(width, 812)
    browser.open(pages["typical"])
    stops = []

    def press(*keys):
        ActionChains(browser.driver).send_keys(*keys).perform()

    def focus():
        return browser.run(
            "const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();"
            "return {name: e.id || e.textContent, ring: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2,"
            " box: [b.left >= 0, b.width > 0, b.bottom > 0]}"
        )

    for _stop in range(40):
        press(Keys.TAB)
        at = focus()
        if at["name"] in stops or browser.run("return document.activeElement === document.body"):
            break
        assert at["ring"] and all(at["box"]), f"the focus on {at['name']!r} cannot be seen"
        stops.append(at["name"])
        if at["name"] == "filter":
            press("compute3")
    heads = ["Host", "Status", "nova_libvirt", "nova_compute", "cinder_volume", "cinder_backup"]
    narrow = width < 500
    assert stops == ["Skip to the hosts", "filter", "status", *(["sort"] if narrow else []), "open-all", "close-all", *([] if narrow else heads), "compute3"]
    browser.run("[...document.querySelectorAll('button.name')].find(b => b.textContent === 'compute3').focus()")
    press(Keys.ENTER)
    assert browser.run("return document.activeElement.ariaExpanded") == "true"
    assert browser.run("return document.getElementById(document.activeElement.getAttribute('aria-controls')).checkVisibility()")
    press(Keys.SPACE)
    assert browser.run("return document.activeElement.ariaExpanded") == "false"


def test_five_hundred_hosts_are_there_within_a_second(browser, pages):
    def load():
        """Milliseconds: by the clock until all is laid out, of the page's script, of the processor; then to filter and to open a host."""
        with browser.fresh_tab():
            browser.look()
            browser.open(pages["many"])
            whole, script = browser.run(
                "const n = performance.getEntriesByType('navigation')[0]; return [n.loadEventEnd, performance.getEntriesByName('script')[0].duration]"
            )
            processor = browser.processor_ms()
            later = browser.run(
                "const time = (f) => { const t = performance.now(); f(); document.body.offsetHeight; return performance.now() - t; };"
                "const field = document.getElementById('filter');"
                "return [time(() => { field.value = 'compute499'; field.dispatchEvent(new Event('input')); }),"
                " time(() => document.querySelector('tr:not([hidden]) .name').click())]"
            )
            assert shown(browser) == ["compute499"]
            return whole, script, processor, *later

    whole, script, processor, filtering, opening = (min(values) for values in zip(*(load() for _try in range(3)), strict=True))
    size = pages["many"].stat().st_size / 1e6
    print(
        f"\n500 hosts, 5 containers, 10 mounts each, {size:.1f} MB: {whole:.0f} ms by the clock, {processor:.0f} ms of the processor, "
        f"script {script:.0f} ms, first filter {filtering:.0f} ms, details of one {opening:.0f} ms"
    )
    assert processor > 20, "nothing was measured"
    assert processor < 1000
    assert whole < 5000


def test_hostile_texts_stay_text(browser, pages):
    browser.open(pages["hostile"])
    browser.run("window.report_alarm = () => { window.alarm = 1; }")
    open_all(browser)
    assert browser.messages() == []
    assert browser.run("return window.alarm") is None
    tags = set(browser.run("return [...document.querySelectorAll('*')].map(e => e.tagName.toLowerCase())"))
    assert not tags - set(
        "html head meta title style body a header h1 h2 h3 h4 h5 p main section ul li span div label input select option button "
        "table caption thead tbody tr th td dl dt dd code pre strong script noscript wbr".split()
    )
    assert browser.run("return document.querySelectorAll('script').length") == 2
    assert browser.run("return [...document.querySelectorAll('a')].map(a => a.getAttribute('href'))") == ["#hosts"]
    text = browser.run("return document.getElementById('matrix').textContent")
    for attack in hostvars.ATTACKS:
        wanted = visible(attack.replace("\ud800", "?"))[:4000]
        assert wanted in text, attack
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202e\u200b]", text)
    # What the host would have the operator run is shown, and not offered for copying.
    host = browser.run("return [...document.querySelectorAll('tr.detail')].find(d => d.textContent.includes('| sh')).querySelector('.command').textContent")
    assert "\n" not in host and host.endswith("rpcbind_ensure"), "no button, one line"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("media", ["screen", "print"])
@pytest.mark.parametrize("width", [1280, 375])
def test_contrast_is_enough_for_every_text(browser, pages, scheme, media, width):
    browser.look(width, 900, scheme, media)
    browser.open(pages["typical"])
    open_all(browser)
    browser.run("document.querySelector('#summary li').classList.add('zero')")
    found = browser.run(CONTRASTS)
    assert len(found) > 150
    assert not [row for row in found if row[1] < 4.5]
    print(f"\n{scheme} {media} {width}: least of {len(found)}: {min(row[1] for row in found):.2f}")


def test_headings_go_down_by_one(browser, pages):
    browser.open(pages["typical"])
    open_all(browser)
    levels = [int(level) for level in browser.run("return [...document.querySelectorAll('h1,h2,h3,h4,h5,h6')].map(h => h.tagName[1])")]
    assert levels.count(1) == 1 and levels[0] == 1 and len(levels) > 20
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert browser.run(
        "return [...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent && [...t.querySelectorAll('th')].every(h => h.scope))"
    )
    assert browser.run("return [...document.querySelectorAll('input,select')].every(e => e.labels.length === 1)")
    assert browser.run("const i = [...document.querySelectorAll('[id]')].map(e => e.id); return i.length === new Set(i).size")


def test_it_prints(browser, pages):
    browser.look(media="print", scheme="dark")
    browser.open(pages["typical"])
    assert browser.run("return ['tools'].every(id => !document.getElementById(id).checkVisibility())")
    assert browser.run("return getComputedStyle(document.querySelector('#matrix > thead')).display") == "table-header-group"
    assert browser.run("return getComputedStyle(document.body).color") == "rgb(28, 32, 36)"
    worst_first = ["compute4", "storage1", "storage2", "compute2", "compute10", "compute7", "compute5", "compute6", "compute3", "compute8", "compute1"]
    assert shown(browser) == worst_first
    printed = browser.command("Page.printToPDF", printBackground=False)["data"]
    assert len(printed) > 10000


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
@pytest.mark.parametrize("name", ["typical", "hostile"])
def test_nothing_is_wider_than_the_window(browser, pages, width, name):
    browser.look(width, 812)
    browser.open(pages[name])
    open_all(browser)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    wide = browser.run(
        "return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1"
        " && !e.closest('.scroll')).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_the_header_stays_and_motion_is_optional(browser, pages):
    browser.open(pages["many"])
    browser.run("scrollTo(0, 20000)")
    assert browser.run("return document.querySelector('#matrix thead th').getBoundingClientRect().top") == 0
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    assert browser.run("return getComputedStyle(document.getElementById('filter')).transitionDuration") == "0s"


def test_without_javascript_the_table_is_there_and_a_note(browser, pages):
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(pages["typical"])
    text = browser.driver.find_element("tag name", "body").text
    for words in ("Without JavaScript", "compute10", "needs the library", "No route to host", "statd dead", "locks refused"):
        assert words in text
    assert "Open all" not in text


def test_screenshots(browser, pages, request, tmp_path):
    """For the README, where --screenshots says so; each is small enough for that."""
    folder = pathlib.Path(request.config.getoption("--screenshots") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, height, scheme in (("report-light.png", 1280, 1170, "light"), ("report-phone-dark.png", 375, 760, "dark")):
        browser.look(width, height, scheme)
        browser.open(pages["typical"])
        browser.look(width, height, scheme)
        if width < 500:
            browser.run(
                "const b = [...document.querySelectorAll('button.name')].find(x => x.textContent === 'compute2');"
                "b.click(); b.closest('tr').scrollIntoView(); scrollBy(0, 40)"
            )
        browser.screenshot(folder / name)
        size = (folder / name).stat().st_size
        assert 5000 < size <= 150 * 1024, f"{name}: {size} bytes"
