"""From landing files to judged events: list files, read lines, parse by format, judge, find duplicates and bots."""
