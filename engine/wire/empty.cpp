// The wire holds only headers until frames arrive.
