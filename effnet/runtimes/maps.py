"""Activation maps: what each place of the last feature map adds to each column of the last layer.

The last layer of every network here is linear, and reads the mean of the last feature map over its places. So the maps

    cam[column, y, x] = sum over channels of weight[column, channel] * map[channel, y, x]

are exact: the mean of a column's map over places, plus its bias, is its value before softmax or sigmoid, divided by the
temperature. What a classifier reads of earlier stages (`ArchSpec.pooled`) is part of the last feature map, with the
same value at every place: it adds to a column, and shows no place. A file with maps returns them as its last output,
`cam`: float32 [batch, columns, height, width] or, of LiteRT, [batch, height, width, columns].

Source: Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016 (class activation mapping).
"""

MAPS = "cam"
"""The name of this output in a file."""
