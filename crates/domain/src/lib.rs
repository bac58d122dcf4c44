//! The domain process: builder, jail, backends, life cycle.
