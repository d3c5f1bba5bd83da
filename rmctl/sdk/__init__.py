"""The Python SDK: DAGs written as Python or YAML, compiled to one JSON definition and a bundle of files."""
