"""Reads geofm training stores. Imports neither other room: the store on disk is the wall."""
