"""Code for apps, written for one file (golden.py).

facts.py reads what it depends on; kotlin.py, swift.py and python.py write it; readme.py puts it together.
"""
