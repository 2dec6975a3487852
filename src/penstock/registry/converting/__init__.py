"""Models of other frameworks on their way into the registry: converted, then proved against the original.

In: a file or folder and rows. Out: the folder of a bundle and what the proof found. All of it happens in a process of
its own with limits (`process.py` starts it, `child.py` is it); a module a framework. Read `request.py` first.
"""
