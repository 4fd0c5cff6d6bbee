"""`bm3 audit`: what does each variant change, the settings in which a paper's text and the published code disagree?"""
