"""`bm3 regress`: did anything become slower, larger or less accurate than a baseline, or than another revision?"""
