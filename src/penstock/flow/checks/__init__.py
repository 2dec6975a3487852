"""The semantic pass, one subject a module; each check is a small function that adds every problem it finds.

In: a `Flow` and its values. Out: problems in a `Findings`, and the checked parts that `plan` needs.
Read `findings.py` first, then `penstock.flow.check`, which calls them in order.
"""
