"""The generated dataset of textured shapes that are warped, cut off and occluded."""
