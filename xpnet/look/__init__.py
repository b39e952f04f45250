"""Seeing what a network does: the microscope, pictures, and pictures that move."""
