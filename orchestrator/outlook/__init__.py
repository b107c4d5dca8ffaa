"""What is likely to happen: the operator's own fleet played in virtual time under the real rules.

`stage` turns `core.fleet.step`, and `looks` and `hands` stand for the world around it; `lives` says
who dies when, `person` when the human answers; `play` is one possible month, `summary` what many of
them say, `advice` what would help. `whatif` and `story` play one given mishap, second by second.
Nothing here reads a clock or draws a number by itself.
"""
