"""Class names that are hostile HTML, for tests of the page."""

HOSTILE = ("\"'><script>hacked()<", "<img src=x onerror=hacked()>", "plain")
"""Names of folders, and of a bundle's classes, sorted."""
