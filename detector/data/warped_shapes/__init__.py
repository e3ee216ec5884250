"""Generated data: textured shapes, warped, cut and hidden."""
