"""Measures pillion beside other proxies. `cli` is the entry, `cases` says what is measured."""
