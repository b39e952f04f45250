"""What the CuPy backend is made of; none of it is imported before CuPy is asked for."""
