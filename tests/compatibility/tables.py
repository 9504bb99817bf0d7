"""Makes the tables of what PyYAML and globus-compute-endpoint make of many inputs."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import pwd
import sys
import tempfile

import yaml

FOLDER = pathlib.Path(__file__).parent

# One document each. Most are a single scalar.
YAML_DOCUMENTS = [
    # booleans
    "yes", "Yes", "YES", "yEs", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", "true", "True", "TRUE", "tRue",
    "false", "False", "FALSE", "y", "n", "Y", "N", "'no'", '"yes"', "!!str no", "!!bool no", "!!bool nope",
    # nothing
    "", "~", "null", "Null", "NULL", "nULL", "none", "None", "''", "!!null x", "!!null ''",
    # whole numbers
    "0", "1", "-1", "+1", "42", "007", "010", "0o10", "08", "09", "0b101", "-0b11", "0b", "0b_", "0b2", "0x1F", "0X1F",
    "-0xff", "0x", "0x_f", "1_000", "_1", "1_", "1__0", "+", "-", "0_", "00", "-010", "+010", "1,000", "12e3",
    "9223372036854775807", "9223372036854775808", "-170141183460469231731687303715884105728", "1:30", "1:60", "190:20:30",
    "-1:30", "01:30", "0:30", "1:5", "1:05", "8080:80", "22:22", "3.14:22", "!!int 012", "!!int '12'", "!!int x", "!!int 1e3",
    # numbers with a point
    "1.5", "-1.5", "+1.5", "1.", ".5", "-.5", "+.5", "._5", ".", "..", "1e3", "1E3", "1e+3", "1.0e3", "1.0e+3", "1.0E-3",
    "1.5e+", "1_000.5", "1._5", "0.1e+1", "01.5", "1:30.5", "1:30.", "0:0.25", "-1:30.5", ".inf", "-.inf", "+.inf", ".Inf",
    ".INF", ".iNf", "inf", ".nan", ".NaN", ".NAN", "-.nan", "nan", "NaN", "1.2.3", "3.10", "3.9", "1e309", "1.0e+309",
    "!!float 3", "!!float '3.5'", "!!float x", "0.1", "123456789.123456789",
    # dates
    "2026-11-21", "2026-1-2", "2026-11-21 10:20:30", "2026-11-21T10:20:30Z", "2026-11-21t10:20:30.5+01:00",
    "2026-11-21 10:20", "'2026-11-21'", "!!str 2026-11-21",
    # text
    "hello", "hello world", "a: b: c", "-", "- -", "-x", "?x", ":x", "a:b", "a#b", "a #b", "@x", "`x`", "%x", "&a x",
    "*a", "!x y", "!!python/object:os.system x", "! 12", "'it''s'", '"\\x41\\u00e9\\n"', '"\\q"', "=", "<<", "'<<'",
    "|\n  a\n  b\n", "|-\n  a\n", ">\n  a\n  b\n", "\ufeffhello", "a\tb", "\ta", "é", "😀", '"a\\\n  b"',
    "1.2.3.4", "127.0.0.1:9464", "::1", "/tmp/x", "C:\\x", "$HOME", "{{ x }}", "a, b", "null x", "yes please", "0x1g",
    # lists and mappings
    "[]", "{}", "[a, b]", "[1, [2, 3]]", "[a, b,]", "{a: 1, b: 2}", "{a: 1,}", "{a}", "[a: 1]", "- a\n- b\n", "- a\n-\n",
    "a: 1\nb:\n  c: 2\n", "a: 1\na: 2\n", "a:\n- 1\n- 2\n", "{1: a, 1.0: b, true: c}", "no: 1\n", "010: a\n",
    "? a\n: b\n", "? [a]\n: b\n", "? {a: 1}\n: b\n", "{\"a\":1}", "{a:1}", "[a,b]", "a:\n  b", "a: 'b'\nc: \"d\"\n",
    "a: |\n  x\n  y\nb: 1\n", "{a: {b: {c: [1, 2]}}}", "a: ~\n", "a:\n", "? a\n", "{? a}",
    # anchors and merges
    "a: &x 1\nb: *x\n", "a: &x [1]\nb: *x\n", "- &x {a: 1}\n- <<: *x\n  b: 2\n", "- &x {a: 1}\n- {a: 3, <<: *x}\n",
    "- &x {a: 1}\n- {<<: *x, a: 3}\n", "- &x {a: 1, b: 1}\n- &y {b: 2, c: 2}\n- {<<: [*x, *y], d: 3}\n",
    "- &x {a: 1, b: 1}\n- &y {b: 2, c: 2}\n- {<<: [*y, *x], d: 3}\n", "{<<: 1}", "{<<: [1]}", "{<<: {a: 1}, <<: {a: 2}}",
    "{'<<': {a: 1}}", "{!!merge x: {a: 1}}", "&x [*x]", "a: *x\n",
    # documents
    "--- a\n", "---\na: 1\n...\n", "---\na\n---\nb\n", "%YAML 1.1\n--- no\n", "# only a comment\n", "---\n", "...\n",
    # broken
    "a: [", "a: 'b", "a:\n  b: 1\n c: 2\n", "}", "a: b\n- c\n", "@", "\x00", "a: 1\n\tb: 2\n",
]  # fmt: skip


def typed(value: object) -> object:
    """Gives a value together with its type, so that JSON can hold it exactly."""
    if value is None:
        return {"null": True}
    if isinstance(value, bool):
        return {"bool": value}
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": repr(value)}
    if isinstance(value, str):
        return {"str": value}
    if isinstance(value, datetime.date):
        return {"date": True}
    if isinstance(value, list):
        return {"list": [typed(item) for item in value]}
    if isinstance(value, dict):
        return {"map": [[typed(key), typed(item)] for key, item in value.items()]}
    raise TypeError(type(value).__name__)


def yaml_table() -> list[dict]:
    """What PyYAML makes of each document."""
    rows = []
    for text in YAML_DOCUMENTS:
        try:
            value = typed(yaml.safe_load(text))
        except (yaml.YAMLError, ValueError, KeyError, RecursionError):
            value = {"error": True}
        rows.append({"text": text, "value": value})
    return rows


RUNTIME = {
    "globus_compute_sdk_version": "4.19.0",
    "python": {"version": "3.11.2", "version_tuple": [3, 11, 2], "ok": True},
    "platform": None,
}
OPTIONS = {
    "text": "plain",
    "quotes": 'a "b" \'c\' \\d',
    "lines": "one\ntwo\ttab",
    "unicode": "é ü 中",
    "colon": "a: [b, {c",
    "number": 3,
    "point": 0.5,
    "whole_point": 1.0,
    "large": 1e20,
    "small": 1e-05,
    "yes": True,
    "no": False,
    "nothing": None,
    "list": ["a", 1, None, True, 2.5],
    "nested": {"z": 1, "a": {"b": "c"}},
    "empty": "",
    "command": "echo 'hi there'; rm -rf $HOME",
    "word": "simple-word.txt",
}

# (template, options)
TEMPLATES = [
    ("no variables\n", {}),
    ("trailing newlines\n\n\n", {}),
    *[("v: {{ " + name + " }}", OPTIONS) for name in OPTIONS],
    ("{{ missing }}", {}),
    ("{{ missing|default }}x", {}),
    ("{{ missing|default() }}x", {}),
    ("{{ missing|default('d') }}", {}),
    ("{{ missing|default(3) }}", {}),
    ("{{ missing|d('d') }}", {}),
    ("{{ nothing|default('d', true) }}", OPTIONS),
    ("{{ empty|default('d', true) }}", OPTIONS),
    ("{% if missing %}a{% endif %}", {}),
    ("{% if missing is defined %}a{% else %}b{% endif %}", {}),
    ("{% if missing is not defined %}a{% endif %}", {}),
    ("{% for x in missing %}a{% endfor %}", {}),
    ("{{ nested.missing }}", OPTIONS),
    ("{{ nested.missing.more }}", OPTIONS),
    ("{{ nested.missing is defined }}", OPTIONS),
    ("{{ nested['a']['b'] }}", OPTIONS),
    ("{{ text + text }}", OPTIONS),
    ("{{ text ~ 1 }}", OPTIONS),
    ("{{ 'a' 'b' }}", {}),
    ("{{ 1 + 2 * 3 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 3 }} {{ 7 / 2 }} {{ 6 / 2 }}", {}),
    ("{{ number + 1 }} {{ number > 2 }} {{ number == 3 and yes }} {{ not yes }}", OPTIONS),
    ("{{ text|shell_escape }}", OPTIONS),
    ("{{ command|shell_escape }}", OPTIONS),
    ("{{ quotes|shell_escape }}", OPTIONS),
    ("{{ lines|shell_escape }}", OPTIONS),
    ("{{ empty|shell_escape }}", OPTIONS),
    ("{{ word|shell_escape }}", OPTIONS),
    ("{{ number|shell_escape }}", OPTIONS),
    ("{{ unicode|shell_escape }}", OPTIONS),
    ("{{ 'not json'|shell_escape }}", OPTIONS),
    ("{{ text|upper }} {{ text.upper() }} {{ text.strip('\"') }} {{ text[1:-1] }} {{ text|length }}", OPTIONS),
    ("{{ word.split('.')[0] }} {{ word.replace('-', '_') }} {{ word.startswith('\"simple') }}", OPTIONS),
    ("{{ list|join(',') }} {{ list|length }} {{ list|first }} {{ list|last }} {{ list[1] }}", OPTIONS),
    ("{% for x in list %}{{ loop.index }}={{ x }};{% endfor %}", OPTIONS),
    ("{% for k, v in nested.items() %}{{ k }}:{{ v }};{% endfor %}", OPTIONS),
    ("{% for k in nested %}{{ k }};{% endfor %}", OPTIONS),
    ("{{ nested.get('z') }} {{ nested.get('q', 5) }} {{ nested.keys()|list }}", OPTIONS),
    ("{{ list|tojson }}", {"list": [1, 2, 3]}),
    ("{{ [1, 2.5, true, none, 'x', \"it's\"] }} {{ {'a': 1, 'b': [2]} }}", {}),
    ("{{ true }} {{ none }} {{ 1.0 }} {{ 1e20 }} {{ 0.00001 }} {{ 123456789012345680.0 }}", {}),
    ("{% set x = 4 %}{{ x }}{% set y %}a {{ x }} b{% endset %}[{{ y }}]", {}),
    ("a\n{%- if true %}\nb\n{%- endif %}\nc", {}),
    ("a\n  {%- set x = 1 -%}  \n b", {}),
    ("{# comment #}x{#- comment -#} y", {}),
    ("{% raw %}{{ x }}{% endraw %}", {}),
    ("a\n{{ 'one\ntwo\n\nthree'|indent(4) }}\n{{ 'one\ntwo'|indent(2, true) }}", {}),
    ("{{ ['a', none, 'b', '']|select|join('-') or none }}", {}),
    ("{{ [none, '']|select|join('-') or 'nothing' }}", {}),
    ("{{ 'x' if number > 1 else 'y' }} {{ 'x' if number > 9 }}", OPTIONS),
    ("{{ [3, 1, 2]|sort }} {{ [1, 2, 3]|sum }} {{ [1, 5, 2]|max }} {{ 'a,b'.split(',')|map('upper')|list }}", {}),
    ("{{ 'a'|replace('a', 'b') }} {{ ' a '|trim }} {{ 'a b'|title }} {{ 3.7|int }} {{ '5'|int + 1 }} {{ 3.14159|round(2) }}", {}),
    ("{{ range(3)|list }} {{ 3 in [1, 3] }} {{ 'a' in 'abc' }} {{ 'a' not in 'abc' }}", {}),
    ("{% macro m(x, y=2) %}{{ x }}{{ y }}{% endmacro %}{{ m(1) }} {{ m(1, y=3) }}", {}),
    ("{% include 'part.j2' %}", {"text": "x"}),
    ("{% extends 'base.j2' %}{% block body %}mine{% endblock %}", {}),
    ("{% from 'macros.j2' import twice %}{{ twice('a') }}", {}),
    ("{% include 'absent.j2' %}", {}),
    ("{% include '../secret' %}", {}),
    ("{{ _GC.user_runtime.globus_compute_sdk_version }} {{ _GC.user_runtime.python.version_tuple|join('.') }}", {}),
    ("{{ _GC.user_runtime.python.version }} {{ _GC.user_runtime.platform }} {{ _GC.user_runtime.python.ok }}", {}),
    ("{{ _GC.user_runtime.python.version[1:-1] }} {{ _GC.user_runtime.absent is defined }}", {}),
    ("{{ _GC.mapped_identity.local.uid }} {{ _GC.mapped_identity.local.uname }} {{ _GC.mapped_identity.globus.id }}", {}),
    ("{{ _GC.parent_config.display_name }} {{ _GC.parent_config.heartbeat_period }} {{ _GC.parent_config.public }}", {}),
    ("{{ _GC.env.WAYPOST_TABLE }}", {}),
    ("{{ _GC.env.WAYPOST_ABSENT }}", {}),
    ("{{ _GC.env.WAYPOST_ABSENT|default('d') }}", {}),
    ("{{ user_runtime.python.version }} {{ mapped_identity.local.uid }} {{ parent_config.display_name }}", {}),
    ("x", {"_GC": 1}),
    ("x", {"parent_config": 1}),
    ("x", {"user_runtime": {}}),
    ("x", {"mapped_identity": None}),
    ("{{ ''.__class__ }}", {}),
    ("{{ x.__class__.__mro__ }}", {"x": 1}),
    ("{% if x %}", {"x": 1}),
    ("{{ x | nosuchfilter }}", {"x": 1}),
    ("{{ nosuchfunction() }}", {}),
    ("{{ 'a'.nosuchmethod() }}", {}),
    ("engine:\n  provider:\n    worker_init: {{ worker_init|default() }}\n    max_blocks: {{ n|default(1) }}\n", {"worker_init": "a\nb", "n": 4}),
]  # fmt: skip

INCLUDED = {
    "part.j2": "part {{ text }}",
    "base.j2": "<{% block body %}theirs{% endblock %}>",
    "macros.j2": "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}",
}
IDENTITY = "5334a9a1-6fd2-4a4f-9f50-0d6ff5ddbb43"


def template_table() -> dict:
    """What globus-compute-endpoint renders of each template."""
    from globus_compute_endpoint.endpoint.config import CoreEndpointConfig
    from globus_compute_endpoint.endpoint.config.utils import render_config_user_template
    from globus_compute_endpoint.endpoint.identity_mapper import MappedPosixIdentity

    os.environ["WAYPOST_TABLE"] = "from: the 'environment'"
    root = pwd.getpwuid(0)
    identity = MappedPosixIdentity(local_user_record=root, matched_identity=IDENTITY, globus_identity_candidates=[])
    parent = CoreEndpointConfig(display_name="Parent's name", public=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, text in INCLUDED.items():
            (pathlib.Path(folder) / name).write_text(text)
        for template, options in TEMPLATES:
            row: dict = {"template": template, "options": options}
            try:
                row["rendered"] = render_config_user_template(
                    parent,
                    template,
                    pathlib.Path(folder) / "user_config_template.yaml.j2",
                    identity,
                    None,
                    options,
                    RUNTIME,
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, the original refuses
                row["error"] = type(error).__name__
            rows.append(row)
    return {"runtime": RUNTIME, "included": INCLUDED, "identity": IDENTITY, "rows": rows}


TABLES = {"yaml_scalars.json": yaml_table, "templates.json": template_table}


def text(table: object) -> str:
    """The table as it is stored: one row a line."""
    if isinstance(table, list):
        return "[\n" + ",\n".join(json.dumps(row) for row in table) + "\n]\n"
    head = {key: value for key, value in table.items() if key != "rows"}
    rows = ",\n".join(json.dumps(row) for row in table["rows"])
    return json.dumps(head)[:-1] + ', "rows": [\n' + rows + "\n]}\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: tables.py --write")
    for name, make in TABLES.items():
        (FOLDER / name).write_text(text(make()))
