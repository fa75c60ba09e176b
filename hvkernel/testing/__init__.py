"""Guests on Hyper-V for tests: a pytest plugin that boots them in every configuration a test asks for.

pytest loads :mod:`hvkernel.testing.plugin` wherever hvkernel is installed, with the model or without: nothing else of
hvkernel is imported before a test takes one of the fixtures.
"""
