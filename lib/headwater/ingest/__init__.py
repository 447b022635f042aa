"""From landing files to judged events: list, read as lines, parse by format, judge, find duplicates and bots."""
