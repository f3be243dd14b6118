"""Class names that are hostile HTML, for tests of the page."""

HOSTILE = ("<img src=x onerror=hacked()>", "\"'><script>hacked()<", "plain")
"""Names of folders, and of a bundle's classes."""
