"""From user vectors to published lists: the exact kernel, the Spark function around it, reasons and fallbacks."""
