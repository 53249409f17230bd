"""`hyena models`: list, inspect, convert and verify models.

VERBS maps each sub-verb to (frozen dataclass of its arguments and options, "module:function" that runs it);
app.add_verb turns both into a command, as for every other verb.
"""

VERBS: dict[str, tuple[type, str]] = {}
