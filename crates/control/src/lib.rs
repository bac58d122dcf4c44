//! How the tools talk to domain processes: run-time directory and control protocol.
