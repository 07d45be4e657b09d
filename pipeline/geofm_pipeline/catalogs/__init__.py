"""Catalogue dialects: each file reads one and gives the same SceneTable for the same granules."""
