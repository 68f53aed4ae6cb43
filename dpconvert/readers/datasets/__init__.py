"""One module for each dataset whose layout no common layout reads; the file name is the registration."""
