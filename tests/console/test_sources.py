"""Rules that a scan of the sources can keep: no script inside pages, and nothing vendored that is not listed."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.staticfiles import finders
from django.core.management import call_command

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
SCRIPTS = sorted(path for path in (ROOT / "static" / "js").rglob("*.js"))
VENDOR = ROOT / "static" / "vendor"
COMMENT = re.compile(r"{#.*?#}", re.S)
FORBIDDEN = {
    "a script inside the page": re.compile(r"<script(?![^>]*\bsrc=)", re.I),
    "a style inside the page": re.compile(r"<style|\sstyle\s*=", re.I),
    "a handler attribute": re.compile(r"<[^>{%]*\son[a-z]+\s*=", re.I),
    "htmx code": re.compile(r"hx-on|hx-vars|js:|javascript:", re.I),
    "autoescape switched off": re.compile(r"\|\s*safe\b|autoescape\s+off"),
    "another site": re.compile(r"(?:src|href|action)\s*=\s*[\"'](?:https?:)?//", re.I),
}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT / "templates")))
def test_templates_hold_no_code(path: Path) -> None:
    text = COMMENT.sub("", path.read_text())
    wrong = [what for what, pattern in FORBIDDEN.items() if pattern.search(text)]
    assert not wrong


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a script inside the page", "<script>alert(1)</script>"),
        ("a style inside the page", '<p style="color:red">'),
        ("a handler attribute", '<a href="#" onclick="x()">'),
        ("htmx code", "<p hx-on:click='x()'>"),
        ("autoescape switched off", "{{ name|safe }}"),
        ("another site", '<script src="https://cdn.example/x.js">'),
    ],
)
def test_the_scan_itself(what: str, text: str) -> None:
    assert FORBIDDEN[what].search(text)


def test_there_are_templates_and_scripts_to_scan() -> None:
    assert len(TEMPLATES) > 40
    assert len(SCRIPTS) > 15


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_make_no_code_and_no_markup(path: Path) -> None:
    text = path.read_text().replace('swap: "innerHTML"', "")  # htmx's name of a way to swap what the server sent.
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert word not in text, word


def test_every_behaviour_of_a_template_exists() -> None:
    modules = {path.stem for path in (ROOT / "static" / "js" / "behaviors").glob("*.js")}
    used = {
        name
        for path in TEMPLATES
        for found in re.findall(r'data-behavior="([^"]+)"', path.read_text())
        for name in found.split()
    }
    tags = ROOT / "apps" / "console" / "templatetags" / "console.py"
    used |= set(re.findall(r'data-behavior="(\w+)"', tags.read_text()))
    assert used <= modules, used - modules
    assert modules <= used, modules - used


def test_every_icon_is_in_the_sprite() -> None:
    sprite = (VENDOR / "lucide-static-1.62.0" / "icons.svg").read_text()
    known = set(re.findall(r'<symbol id="([^"]+)"', sprite))
    sources = [
        *TEMPLATES,
        ROOT / "apps" / "console" / "context.py",
        ROOT / "apps" / "console" / "views" / "overview.py",
    ]
    used: set[str] = set()
    for path in sources:
        text = path.read_text()
        used |= set(
            re.findall(r'{% icon "([^"]+)"|\bicon="([^"]+)"', text) and re.findall(r'icon[ =]"([a-z0-9-]+)"', text)
        )
        used |= set(re.findall(r'"icon": "([^"]+)"', text))
    assert used
    assert used <= known, used - known


def test_every_vendored_file_is_listed_with_its_hash() -> None:
    entries = json.loads((VENDOR / "manifest.json").read_text())
    listed = {entry["file"]: entry for entry in entries}
    assert len(listed) == len(entries)
    present = {str(path.relative_to(VENDOR)) for path in VENDOR.rglob("*") if path.is_file()} - {"manifest.json"}
    assert present == set(listed)
    for name, entry in listed.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == entry["sha256"], name
        assert name.startswith(f"{entry['name']}-{entry['version']}/"), name
        assert re.fullmatch(rf"npm:(@[\w-]+/)?[\w.-]+@{re.escape(entry['version'])}", entry["source"]), name
        assert entry["licence"] in {"0BSD", "MIT", "ISC", "OFL-1.1"}, name
    folders = {name.split("/")[0] for name in listed}
    assert all(f"{folder}/LICENSE" in listed for folder in folders)


def test_hashed_names_reach_every_import(settings: Any, tmp_path: Path) -> None:
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": "rmportal.storage.ManifestStorage"}}
    finders.get_finder.cache_clear()
    call_command("collectstatic", interactive=False, verbosity=0)
    names = json.loads((tmp_path / "staticfiles.json").read_text())["paths"]
    for source in [path for path in names if path.startswith("js/")]:
        text = (tmp_path / names[source]).read_text()
        for target in re.findall(r'^(?:import|export)[^;]*?["\'](\.[^"\']+)["\'];', text, re.M):
            found = (tmp_path / names[source]).parent / target
            assert found.is_file(), f"{source} imports {target}"
            assert re.search(r"\.[0-9a-f]{12}\.js$", target), f"{source} imports {target} without a hash"
    for name in names:
        if name.startswith("vendor/") and name.endswith(".js"):
            assert (tmp_path / names[name]).read_bytes() == (ROOT / "static" / name).read_bytes(), name
