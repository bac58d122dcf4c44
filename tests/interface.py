"""The daemon's interface against its own description (docs/openapi.json): requests made from the
description, and spoilt ones; every answer must be what the description says."""

import contextlib
import copy
import http.client
import json
import random
import string
import urllib.parse

from rig import ROOT, DaemonConnection, expect, wait_for

DOCUMENT = json.loads((ROOT / "docs/openapi.json").read_text())
KNOWN = {"$ref", "additionalProperties", "allOf", "description", "enum", "format", "items", "maxLength", "minLength",
    "minimum", "oneOf", "properties", "propertyNames", "required", "type"}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int, "number": (int, float), "null": type(None)}
METHODS = ("get", "post", "put", "delete")


class Mismatch(Exception):
    """A value is not what a schema says."""


def resolved(schema):
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def kinds(schema):
    kind = schema.get("type", [])
    return [kind] if isinstance(kind, str) else kind


def is_a(value, kind):
    return isinstance(value, TYPES[kind]) and (kind in ("boolean", "object") or not isinstance(value, bool))


def members(schema, value, place):
    """Checks a value; the names of its members that are described, or None if any may be there."""
    schema = resolved(schema)
    unknown = set(schema) - KNOWN
    if unknown:
        raise Mismatch(f"{place}: this test does not know {unknown}")
    if kinds(schema) and not any(is_a(value, kind) for kind in kinds(schema)):
        raise Mismatch(f"{place}: {value!r} is not of the type {kinds(schema)}")
    if "enum" in schema and value not in schema["enum"]:
        raise Mismatch(f"{place}: {value!r} is none of {schema['enum']}")
    if isinstance(value, (int, float)) and value < schema.get("minimum", value):
        raise Mismatch(f"{place}: {value} is less than {schema['minimum']}")
    if isinstance(value, str) and not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        raise Mismatch(f"{place}: {value!r} has another length")
    if isinstance(value, list):
        for number, item in enumerate(value):
            check(schema.get("items", {}), item, f"{place}[{number}]")
    parts = [members(part, value, place) for part in schema.get("allOf", [])]
    if "oneOf" in schema:
        fitting, why = [], []
        for part in schema["oneOf"]:
            try:
                fitting.append(members(part, value, place))
            except Mismatch as mismatch:
                why.append(str(mismatch))
        if len(fitting) != 1:
            raise Mismatch(f"{place}: {len(fitting)} of {len(schema['oneOf'])} forms fit {value!r}: {why}")
        parts += fitting
    if not isinstance(value, dict):
        return set()
    missing = set(schema.get("required", [])) - set(value)
    if missing:
        raise Mismatch(f"{place}: {missing} are missing in {value!r}")
    described = schema.get("properties", {})
    for name in set(described) & set(value):
        check(described[name], value[name], f"{place}.{name}")
    more = schema.get("additionalProperties")
    if more is not None:
        for name in set(value) - set(described):
            check(more, value[name], f"{place}.{name}")
    is_open = more is not None or not (described or parts) or None in parts
    return None if is_open else set(described).union(*parts)


def check(schema, value, place):
    """A value is what a schema says, and has no members of which it does not speak."""
    names = members(schema, value, place)
    if isinstance(value, dict) and names is not None and set(value) - names:
        raise Mismatch(f"{place}: {set(value) - names} are not described")


class Maker:
    """Makes requests. `samples` are values for members that the description leaves open, by name."""

    def __init__(self, dice, samples):
        self.dice, self.samples = dice, samples

    def value(self, schema, name=""):
        """A value that a schema allows."""
        dice, schema = self.dice, resolved(schema)
        if name in self.samples and dice.random() < 0.9:
            return copy.deepcopy(dice.choice(self.samples[name]))
        if "enum" in schema:
            return dice.choice(schema["enum"])
        if "oneOf" in schema:
            return self.value(dice.choice(schema["oneOf"]))
        kind = dice.choice(kinds(schema) or ["null"])
        if kind == "object":
            required = schema.get("required", [])
            chosen = [key for key in schema.get("properties", {}) if key in required or dice.random() < 0.5]
            return {key: self.value(schema["properties"][key], key) for key in chosen}
        if kind == "array":
            return [self.value(schema.get("items", {})) for _ in range(dice.randrange(3))]
        if kind == "integer":
            return dice.choice([0, 1, 2, 16, 51712, (1 << 31) - 1, (1 << 32) - 1, (1 << 63) - 1])
        if kind == "string":
            most = min(schema.get("maxLength", 20), 20)
            return "".join(dice.choices(string.ascii_letters + string.digits + "-._ /\u00fc\n", k=dice.randint(schema.get("minLength", 0), most)))
        return {"boolean": dice.random() < 0.5, "null": None, "number": dice.random()}[kind]

    def spoilt(self, value):
        """A value of which some part is another."""
        dice = self.dice
        if isinstance(value, dict) and value and dice.random() < 0.8:
            value, key = dict(value), dice.choice(list(value))
            what = dice.randrange(4)
            if what == 0:
                del value[key]
            elif what == 1:
                value["".join(dice.choices(string.ascii_letters, k=5))] = value[key]
            else:
                value[key] = self.spoilt(value[key])
            return value
        if isinstance(value, list) and value and dice.random() < 0.8:
            return [*value, self.spoilt(dice.choice(value))]
        return dice.choice([None, True, -1, 1e300, 1 << 64, "", "\0", "x" * 70_000, [], {}, [[[[]]]], {"a": {}}])

    def body(self, schema):
        """The bytes of a request: mostly what is wanted, or nearly."""
        value, dice = self.value(schema), self.dice
        kind = dice.random()
        if kind < 0.5:
            return json.dumps(value).encode()
        if kind < 0.9:
            return json.dumps(self.spoilt(value)).encode()
        whole = json.dumps(value).encode()
        return dice.choice([b"", whole[:len(whole) // 2], b"[" * 100_000, b"\xff\xfe" + whole, whole + whole, b'{"a":NaN}', dice.randbytes(500)])

    def path(self, path, names):
        """A path with names in it, of domains that are there for the most part."""
        strange = ["Domain-0", "ghost", "0", "1", "", ".", "..", "../../host", "\0", "\u00fc", "a" * 300, "%", " ", "?x=1", "99999999999"]
        name = self.dice.choice(names if self.dice.random() < 0.7 else strange)
        kind = self.dice.choice(["vbd", "vif", "console", "vbd", "..", ""])
        return path.replace("{domain}", urllib.parse.quote(name, safe="")).replace("{class}", kind)


def operations():
    return [(method, path, what) for path, methods in DOCUMENT["paths"].items() for method, what in methods.items()
        if method in METHODS and path != "/v1/events"]


def ask(rig, method, path, body):
    connection = DaemonConnection(rig.work / "run")
    connection.connect()
    request = f"{method.upper()} {path} HTTP/1.1\r\nHost: xend\r\nConnection: close\r\nContent-Length: {len(body or b'')}\r\n\r\n"
    # It may refuse a body before it has read all of that.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sock.sendall(request.encode() + (body or b""))
    answer = http.client.HTTPResponse(connection.sock, method=method.upper())
    try:
        answer.begin()
        return answer.status, answer.getheader("content-type", ""), answer.read()
    except (ConnectionResetError, http.client.RemoteDisconnected) as error:
        raise AssertionError(f"{method} {path} was not answered") from error
    finally:
        connection.close()


def clear(rig):
    """Ends and deletes all domains, whatever they are called by now."""
    def gone():
        left = json.loads(ask(rig, "get", "/v1/domains", None)[2])
        for domain in left:
            ask(rig, "post", f"/v1/domains/{domain['uuid']}/destroy", None)
            ask(rig, "delete", f"/v1/managed/{domain['uuid']}", None)
        return not left
    wait_for(gone, 20, "domains are left")


def compare(what, path, answer):
    """An answer is one of those that are described; its status."""
    status, kind, text = answer
    described = what["responses"].get(str(status), what["responses"].get("default"))
    expect(described, f"{path}: status {status} is not described")
    content = described["content"]
    expect(status != 200 or any(kind.startswith(known) for known in content), f"{path}: {kind!r} is not described")
    if "application/json" in content or status != 200:
        try:
            value = json.loads(text)
            check(content["application/json"]["schema"], value, path)
        except (Mismatch, ValueError) as error:
            raise AssertionError(f"{path}, status {status}: {error}") from error
    return status


def events(rig, act):
    """What happens while `act` runs is told as described; the words of what happened."""
    connection = DaemonConnection(rig.work / "run")
    connection.request("GET", "/v1/events")
    stream, told = connection.getresponse(), []
    schema = DOCUMENT["paths"]["/v1/events"]["get"]["responses"]["200"]["content"]["application/jsonl"]["schema"]
    first = json.loads(stream.readline())
    check(schema, first, "events")
    last = act()
    while not told or told[-1] != last:
        event = json.loads(stream.readline())
        check(schema, event, "events")
        told.append(event["event"])
    connection.close()
    return [first["event"], *told]


def storm(rig, rounds, seed, renew, samples, names):
    """Asks everything `rounds` times; how often each operation succeeded, and how many were refused."""
    dice = random.Random(seed)
    maker = Maker(dice, samples)
    succeeded, refused, count = {}, 0, 0
    for _ in range(rounds):
        todo = operations()
        dice.shuffle(todo)
        for method, path, what in todo:
            if count % 40 == 0:
                renew()
            count += 1
            schema = what.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            body = maker.body(schema) if schema else None
            answer = ask(rig, method, maker.path(path, names), body)
            if compare(what, f"{method} {path} with {(body or b'')[:300]!r}", answer) == 200:
                succeeded[what["operationId"]] = succeeded.get(what["operationId"], 0) + 1
            else:
                refused += 1
    return succeeded, refused
