"""A module beside the DAG files."""


def rounded(value):
    return round(value, 2)
