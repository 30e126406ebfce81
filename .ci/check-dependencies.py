#!/usr/bin/env python3
"""Holds the locked dependency tree against deny.toml without network: banned crates and version floors, licences, sources, duplicates.

usage: check-dependencies.py <deny.toml> < output of `cargo metadata --format-version 1 --locked`
A crate that deny.toml's `skip` or `skip-tree` names may stand in the tree twice, with all below it in the latter case.
"""
import collections
import json
import re
import sys
import tomllib

CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def version(text):
    return tuple(int(part) for part in re.split(r"[-+]", text)[0].split("."))


def matches(package, rule):
    """Whether `name`, `name@1.2` (that version or a longer one) or `name@<1.2.3` names this package."""
    name, _, wanted = rule["crate"].partition("@")
    if package["name"] != name:
        return False
    if not wanted:
        return True
    if wanted.startswith("<"):
        return version(package["version"]) < version(wanted[1:])
    parts = version(wanted.lstrip("="))
    return version(package["version"])[: len(parts)] == parts


def licence_allowed(expression, allowed):
    """A small SPDX reader: OR needs one side, AND both; an old-style slash means OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def either():
        value = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            value = both() or value
        return value

    def both():
        value = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            value = one() and value
        return value

    def one():
        token = tokens.pop(0)
        if token == "(":
            value = either()
            tokens.pop(0)
            return value
        if tokens and tokens[0] == "WITH":
            tokens.pop(0)
            token += " WITH " + tokens.pop(0)
        return token in allowed

    return either()


def below(roots, nodes):
    """Ids of `roots` and of everything they depend on."""
    found, todo = set(), list(roots)
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo.extend(nodes[current])
    return found


def main():
    with open(sys.argv[1], "rb") as file:
        policy = tomllib.load(file)
    metadata = json.load(sys.stdin)
    nodes = {node["id"]: node["dependencies"] for node in metadata["resolve"]["nodes"]}
    packages = [package for package in metadata["packages"] if package["id"] in nodes]
    outside = [package for package in packages if package["source"] is not None]
    faults = []

    for package in outside:
        title = f"{package['name']} {package['version']}"
        for rule in policy["bans"]["deny"]:
            if matches(package, rule):
                faults.append(f"{title} is banned by deny.toml: {rule['crate']}")
        if not package["license"]:
            faults.append(f"{title} names no licence")
        elif not licence_allowed(package["license"], policy["licenses"]["allow"]):
            faults.append(f"{title} has a licence deny.toml does not allow: {package['license']}")
        if package["source"] != CRATES_IO:
            faults.append(f"{title} does not come from crates.io")

    trees = policy["bans"].get("skip-tree", [])
    skipped = below([p["id"] for p in outside if any(matches(p, rule) for rule in trees)], nodes)
    skipped |= {p["id"] for p in outside if any(matches(p, rule) for rule in policy["bans"].get("skip", []))}
    versions = collections.defaultdict(set)
    for package in outside:
        if package["id"] not in skipped:
            versions[package["name"]].add(package["version"])
    for name, found in sorted(versions.items()):
        if len(found) > 1:
            faults.append(f"{name} stands in the tree as {', '.join(sorted(found))}: update one, or give a reason in deny.toml's skip list")

    for fault in faults:
        print(fault)
    print(f"{len(outside)} crates checked, {len(faults)} fault(s)")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
