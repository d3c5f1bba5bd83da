"""The pure core: numpy and the standard library, no Django, no clock, no I/O, no unseeded randomness.

Every module decides from plain values that its caller observed; the caller applies what was decided.
"""
