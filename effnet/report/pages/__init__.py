"""Pages of single verbs, each one file that shows a table and perhaps a plot; written with the standard library."""
