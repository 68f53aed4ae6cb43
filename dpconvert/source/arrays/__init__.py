"""Images that are elements of a file: of arrays in HDF5, .npy and .npz, and of columns of Parquet."""
