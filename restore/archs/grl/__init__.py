"""Floor 3. GRL, explicit modelling of global, regional and local structure (CVPR 2023).

`tables` positions and regions; `attention` one attention with its position bias; `blocks` windows,
stripes, anchors, convolutions; `network` the whole.
"""
