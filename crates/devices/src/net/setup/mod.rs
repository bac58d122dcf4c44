//! What is set up on the host for a network interface, by the domain process.
