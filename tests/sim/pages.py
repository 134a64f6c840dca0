# SPDX-License-Identifier: Apache-2.0
"""Reads the pages that reports write."""

import html.parser
import re


class Tags(html.parser.HTMLParser):
    """Collects tags with their attributes and checks that they nest."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self):
        super().__init__()
        self.found = []
        self.open = []
        self.text = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(text):
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == []
    return tags


def words(text):
    """The words of a page, with ordinary spaces."""
    return " ".join(" ".join(parse(text).text).replace("\u202f", " ").split())


def check_self_contained(text):
    """Nothing is loaded from elsewhere, nothing runs."""
    tags = parse(text)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in tags.found}
    for _, attributes in tags.found:
        for name in ("src", "href", "srcset", "data", "poster"):
            assert attributes.get(name, "#").startswith(("data:", "#"))
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in text
    assert re.findall(r"url\(", text) == []
    assert "http" not in text
