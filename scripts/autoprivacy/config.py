def complete(c):
    c.setdefault("data", {"folder": None}); return c
