"""`bm3 scaling`: do time and memory grow with the problem as published?"""
