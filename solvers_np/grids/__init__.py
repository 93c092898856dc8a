"""Time grids: at which levels the network is called."""
