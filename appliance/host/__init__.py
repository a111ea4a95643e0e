"""What an installation puts on a host: what there is, what is wanted, and the way from one to the other.

`items` names the things, `wanted` lists those of an installation, `facts` looks what there is, `plan`
compares (pure), `apply` makes the changes. Nothing of a running gateway imports this package.
"""
