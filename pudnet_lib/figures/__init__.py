"""Figures and panels of single experiments; they go into notebook cells and plots.py."""
