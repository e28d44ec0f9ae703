"""Example models and photographs, made from packages of the Python Package Index; nothing large is in the tree.

`python -m examples.models` writes a model folder, `python -m examples.publish` uploads one. Licences: README.md.
"""
