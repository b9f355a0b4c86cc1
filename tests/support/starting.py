"""Starts that fail with an error."""


def is_one_line_about(name, text):
    return text.startswith(name + ": ") and "\n" not in text and "hu" not in text.partition(": ")[2]
